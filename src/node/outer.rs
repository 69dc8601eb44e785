//! What both sides take from a channel: secrets and a binding from its own TLS, what went wrong there, and the lane that it
//! makes.

use super::error::ConnectError;
use crate::base::SessionId;
use crate::channel::{ChannelInfo, ChannelKind, DialError, OuterTls, QuicConnection, TlsError};
use crate::crypto::SessionSecrets;
use crate::crypto::identity::VerifyFailure;
use crate::session::{EstablishError, LaneKind, LaneSetup};
use crate::wire::LaneUsage;

/// Exporter of RFC 9266: what a join over TLS is bound to.
const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The session's secrets and packet protection from a channel's own TLS.
pub(super) fn outer_secrets(
    outer: &OuterTls,
    session_id: SessionId,
    key_log: &dyn rustls::KeyLog,
) -> Result<(SessionSecrets, rustls::quic::Suite), ConnectError> {
    let secrets = SessionSecrets::from_exporter(session_id, |output, label, context| {
        outer.export_keying_material(label, Some(context)).map(|bytes| output.copy_from_slice(&bytes))
    })
    .map_err(|error| ConnectError::OuterTls(error.to_string()))?;
    let suite = outer
        .cipher_suite()
        .tls13()
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .ok_or_else(|| ConnectError::OuterTls("its cipher suite protects no packets".to_owned()))?;
    secrets.tell(key_log, session_id, &suite);
    Ok((secrets, suite))
}

/// What went wrong in the handshake of a `tls://` channel, in the verifier's words if it was that.
pub(super) fn outer_tls_error(error: &TlsError) -> ConnectError {
    let verified = match error {
        TlsError::Handshake(io) => io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    ConnectError::OuterTls(verified.map_or_else(|| error.to_string(), VerifyFailure::explain))
}

/// What went wrong in the handshake of a `quic://` channel, in the verifier's words if it was that.
pub(super) fn quic_error(error: DialError) -> ConnectError {
    match error {
        DialError::Quic { source, .. } => source.into(),
        other => other.into(),
    }
}

/// What went wrong on a channel whose handshake is over at this side: a server learns who we are only then, and its
/// refusal ends whatever was begun.
pub(super) fn told(error: ConnectError, quic: Option<&QuicConnection>) -> ConnectError {
    if quic.is_some_and(QuicConnection::is_refused) { EstablishError::Refused.into() } else { error }
}

/// What a join over TLS is bound to.
pub(super) fn channel_binding(outer: &OuterTls) -> Result<[u8; 32], ConnectError> {
    outer
        .export_keying_material(CHANNEL_BINDING_LABEL, Some(b""))
        .map_err(|error| ConnectError::OuterTls(error.to_string()))
}

/// The lane that a dialled channel makes.
pub(super) fn lane_setup(info: &ChannelInfo, usage: LaneUsage) -> LaneSetup {
    LaneSetup { usage, path: info.path(), ..LaneSetup::new(lane_kind(info.kind)) }
}

pub(super) fn lane_kind(kind: ChannelKind) -> LaneKind {
    match kind {
        ChannelKind::Tcp => LaneKind::Tcp,
        ChannelKind::Unix => LaneKind::Unix,
        ChannelKind::Tls => LaneKind::Tls,
        ChannelKind::Quic => LaneKind::Quic,
    }
}
