//! A token, and a certificate that came by one, as lists show them.

use std::io::{self, Write};

use serde::Serialize;

use crate::config::text;
use crate::enroll::{Issuance, TokenRecord};

/// What may be shown of a token.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    id: String,
    state: &'static str,
    is_for_guests: bool,
    name: String,
    roles: Vec<String>,
    address_range: Option<String>,
    use_count: u32,
    uses_max: u32,
    created_unix: u64,
    not_after_unix: u64,
    revoked_unix: Option<u64>,
}

/// What may be shown of a certificate.
#[derive(Debug, Serialize)]
pub(super) struct Use {
    name: String,
    address: Option<String>,
    reserved_unix: u64,
    not_after_unix: i64,
    is_issued: bool,
}

impl Row {
    pub(super) fn new(token: &TokenRecord, now_unix: u64) -> Self {
        Self {
            id: token.id.to_string(),
            state: token.state(now_unix),
            is_for_guests: token.is_for_guests,
            name: token.name.to_string(),
            roles: token.roles.iter().map(ToString::to_string).collect(),
            address_range: token.address_range.map(|range| range.to_string()),
            use_count: token.use_count,
            uses_max: token.uses_max,
            created_unix: token.created_unix,
            not_after_unix: token.not_after_unix,
            revoked_unix: token.revoked_unix,
        }
    }

    pub(super) fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let until = text::date(self.not_after_unix);
        let Self { id, state, name, use_count, uses_max, .. } = self;
        writeln!(out, "{id}  {state:<7}  {:>9}  until {until}  {name}", format!("{use_count}/{uses_max}"))
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "token    {}", self.id)?;
        writeln!(out, "state    {}", self.state)?;
        writeln!(out, "name     {}", self.name)?;
        if self.is_for_guests {
            writeln!(out, "for      guests")?;
        }
        if !self.roles.is_empty() {
            writeln!(out, "roles    {}", self.roles.join(", "))?;
        }
        if let Some(range) = &self.address_range {
            writeln!(out, "from     {range}")?;
        }
        writeln!(out, "uses     {} of {}", self.use_count, self.uses_max)?;
        writeln!(out, "created  {}", text::date(self.created_unix))?;
        writeln!(out, "until    {}", text::date(self.not_after_unix))?;
        self.revoked_unix.map_or(Ok(()), |at| writeln!(out, "revoked  {}", text::date(at)))
    }
}

impl Use {
    pub(super) fn new(issuance: &Issuance) -> Self {
        Self {
            name: issuance.name.clone(),
            address: issuance.address.map(|address| address.to_string()),
            reserved_unix: issuance.reserved_unix,
            not_after_unix: issuance.not_after_unix,
            is_issued: issuance.certificate.is_some(),
        }
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let from = self.address.as_deref().unwrap_or("-");
        let at = text::date(self.reserved_unix);
        let what = match self.is_issued {
            true => format!("until {}", text::date(u64::try_from(self.not_after_unix).unwrap_or(0))),
            false => "reserved, not issued yet".to_owned(),
        };
        writeln!(out, "used     {at} by {} from {from}: {what}", self.name)
    }
}
