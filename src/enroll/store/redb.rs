//! The state in one file, by redb.
//!
//! The file is open, and locked, for one transaction at a time: so the commands and a running enrolment point can take
//! turns. Commits are synced before they return, and in two phases with the allocator's state (quick repair), so that a
//! crash costs the next opening nothing. Rows are JSON: a person can read them, and later versions can add fields.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Ask, DenylistRecord, GuestAsk, RenewAsk, Store, StoreError};
use crate::base::limits;
use crate::crypto::token::TokenId;
use crate::enroll::records::issuance_key;
use crate::enroll::{Denial, Denied, Issuance, NamePattern, Refusal, TokenRecord};

/// The state in a file.
pub struct RedbStore {
    path: PathBuf,
    place: Box<dyn Place>,
    migrations: &'static [Migration],
    turn: Mutex<()>,
}

/// Opens the database, wherever it is kept.
pub(super) trait Place: Send + Sync {
    fn open(&self) -> Result<Database, DatabaseError>;

    /// Without writing, so that reading waits for no disk.
    fn open_to_read(&self) -> Result<ReadOnlyDatabase, DatabaseError>;
}

/// A file.
struct InFile {
    path: PathBuf,
    may_create: bool,
}

impl Place for InFile {
    fn open(&self) -> Result<Database, DatabaseError> {
        if self.may_create { builder().create(&self.path) } else { builder().open(&self.path) }
    }

    fn open_to_read(&self) -> Result<ReadOnlyDatabase, DatabaseError> {
        builder().open_read_only(&self.path)
    }
}

/// Brings the tables from one schema to the next one.
type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

impl RedbStore {
    /// Makes an empty state, for its owner only.
    ///
    /// # Errors
    /// [`StoreError`]; also if there is a file.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => StoreError::Exists { path: path.to_owned() },
            _ => StoreError::Io { path: path.to_owned(), source },
        })?;
        let store = Self::with(path, InFile { path: path.to_owned(), may_create: true }, MIGRATIONS);
        store.write(initialise)?;
        // The file is on the disk; its name is when the directory is.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        Self::open(path)
    }

    /// Uses the state that is there, and brings it to this program's schema.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, MIGRATIONS)
    }

    pub(super) fn open_with(path: &Path, migrations: &'static [Migration]) -> Result<Self, StoreError> {
        let store = Self::with(path, InFile { path: path.to_owned(), may_create: false }, migrations);
        store.migrate()?;
        Ok(store)
    }

    pub(super) fn with(path: &Path, place: impl Place + 'static, migrations: &'static [Migration]) -> Self {
        Self { path: path.to_owned(), place: Box::new(place), migrations, turn: Mutex::new(()) }
    }

    /// Steps from the schema that is found to the last one, in one transaction.
    fn migrate(&self) -> Result<(), StoreError> {
        let known = self.migrations.len() as u64 + FIRST_SCHEMA;
        let found = self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(SCHEMA)?.map(|value| value.value()))
        })?;
        let found = found.ok_or_else(|| self.damaged("it has no schema"))?;
        if found > known {
            return Err(StoreError::Newer { path: self.path.clone(), found, known });
        }
        if found == known {
            return Ok(());
        }
        self.write(|transaction| {
            for migration in &self.migrations[(found - FIRST_SCHEMA) as usize..] {
                migration(transaction)?;
            }
            transaction.open_table(META)?.insert(SCHEMA, known)?;
            Ok(())
        })
    }

    /// Runs `work` in a transaction that is committed and synced if it succeeds, and leaves nothing otherwise.
    pub(super) fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.in_turn(|| self.place.open())?;
        let written = || {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        written().map_err(|failure| self.explain(failure))
    }

    /// Runs `work` on what is there. After a crash the file has to be repaired first, by opening it for writing.
    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>) -> Result<T, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match self.in_turn(|| self.place.open_to_read()) {
            Ok(database) => database.begin_read().map_err(Failure::from).and_then(|transaction| work(&transaction)),
            Err(_) => {
                let database = self.in_turn(|| self.place.open())?;
                database.begin_read().map_err(Failure::from).and_then(|transaction| work(&transaction))
            }
        };
        read.map_err(|failure| self.explain(failure))
    }

    /// Waits for other processes. They hold the file for milliseconds, and it has no queue: whoever asks often gets it.
    fn in_turn<D>(&self, open: impl Fn() -> Result<D, DatabaseError>) -> Result<D, StoreError> {
        let deadline = Instant::now() + limits::STATE_LOCK_TIMEOUT;
        loop {
            match open() {
                Ok(database) => return Ok(database),
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(StoreError::of(&self.path, error.into())),
            }
        }
    }

    fn explain(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Redb(error) => StoreError::of(&self.path, error),
            Failure::Row(reason) => self.damaged(&reason),
            Failure::Store(error) => error,
        }
    }

    fn damaged(&self, reason: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), reason: reason.to_owned() }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for RedbStore {
    fn add_token(&self, token: &TokenRecord) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            if tokens.get(&token.id.as_bytes()[..])?.is_some() {
                return Err(Failure::Store(StoreError::TokenExists { id: token.id }));
            }
            put(&mut tokens, token.id.as_bytes(), token)
        })
    }

    fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.read(|transaction| get(&transaction.open_table(TOKENS)?, id.as_bytes()))
    }

    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(|transaction| all(&transaction.open_table(TOKENS)?))
    }

    fn revoke_token(&self, id: TokenId, now_unix: u64) -> Result<Option<TokenRecord>, StoreError> {
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let Some(mut token) = get::<TokenRecord>(&tokens, id.as_bytes())? else { return Ok(None) };
            token.revoked_unix.get_or_insert(now_unix);
            put(&mut tokens, id.as_bytes(), &token)?;
            Ok(Some(token))
        })
    }

    fn reserve(&self, ask: &Ask<'_>) -> Result<Result<Issuance, Refusal>, StoreError> {
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let mut issuances = transaction.open_table(ISSUANCES)?;
            let mut names = transaction.open_table(NAMES)?;
            let Some(mut token) = get::<TokenRecord>(&tokens, ask.token_id.as_bytes())? else {
                return Ok(Err(Refusal::UnknownToken));
            };
            let name = match token.admit(ask.name, ask.address, ask.now_unix) {
                Ok(name) => name,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let kinds = [Denied::Node(name.clone()), Denied::Key(ask.spki_sha256), Denied::Token(ask.token_id)];
            if is_denied(transaction, &kinds)? {
                return Ok(Err(Refusal::Denied));
            }
            let key = issuance_key(Some(ask.token_id), &ask.request_sha256);
            if let Some(issuance) = get::<Issuance>(&issuances, &key)? {
                return Ok(if issuance.name == name { Ok(issuance) } else { Err(Refusal::WrongName) });
            }
            if !token.has_uses_left() {
                return Ok(Err(Refusal::UsedUp));
            }
            if matches!(token.name, NamePattern::Prefix(_)) {
                let holder = names.get(name.as_str())?.map(|key| key.value().to_vec());
                let holder: Option<Issuance> = holder.map_or(Ok(None), |key| get(&issuances, &key))?;
                let is_taken = |other: &Issuance| {
                    other.spki_sha256 != ask.spki_sha256 && other.not_after_unix > unix(ask.now_unix)
                };
                if holder.as_ref().is_some_and(is_taken) {
                    return Ok(Err(Refusal::NameTaken));
                }
            }
            let issuance = ask.issuance(&token, name);
            token.use_count += 1;
            put(&mut tokens, ask.token_id.as_bytes(), &token)?;
            put(&mut issuances, &key, &issuance)?;
            names.insert(issuance.name.as_str(), &key[..])?;
            Ok(Ok(issuance))
        })
    }

    fn take_guest_use(&self, ask: &GuestAsk<'_>) -> Result<Result<(String, TokenRecord), Refusal>, StoreError> {
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let denials = transaction.open_table(DENIALS)?;
            let Some(mut token) = get::<TokenRecord>(&tokens, ask.token_id.as_bytes())? else {
                return Ok(Err(Refusal::UnknownToken));
            };
            let name = match token.admit_guest(ask.name, ask.address, ask.now_unix) {
                Ok(name) => name,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if denials.get(Denied::Token(ask.token_id).to_string().as_bytes())?.is_some() {
                return Ok(Err(Refusal::Denied));
            }
            if !token.has_uses_left() {
                return Ok(Err(Refusal::UsedUp));
            }
            token.use_count += 1;
            put(&mut tokens, ask.token_id.as_bytes(), &token)?;
            Ok(Ok((name, token)))
        })
    }

    fn revoked_guest_tokens(&self, now_unix: u64) -> Result<Vec<TokenId>, StoreError> {
        self.read(|transaction| {
            let denials = transaction.open_table(DENIALS)?;
            let mut tokens: Vec<TokenRecord> = all(&transaction.open_table(TOKENS)?)?;
            tokens.retain(|token| token.is_for_guests && token.not_after_unix > now_unix);
            let mut revoked = Vec::new();
            for token in tokens {
                let is_denied =
                    || Ok::<_, Failure>(denials.get(Denied::Token(token.id).to_string().as_bytes())?.is_some());
                if token.revoked_unix.is_some() || is_denied()? {
                    revoked.push(token.id);
                }
            }
            Ok(revoked)
        })
    }

    fn commit(&self, token_id: TokenId, request_sha256: [u8; 32], certificate: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.write(|transaction| {
            let mut issuances = transaction.open_table(ISSUANCES)?;
            let key = issuance_key(Some(token_id), &request_sha256);
            let issuance = get::<Issuance>(&issuances, &key)?;
            let mut issuance = issuance.ok_or(Failure::Store(StoreError::NotReserved { id: token_id }))?;
            if let Some(earlier) = issuance.certificate {
                return Ok(earlier);
            }
            issuance.certificate = Some(certificate.to_vec());
            put(&mut issuances, &key, &issuance)?;
            Ok(certificate.to_vec())
        })
    }

    fn record(&self, issuance: &Issuance) -> Result<(), StoreError> {
        self.write(|transaction| {
            let key = issuance_key(issuance.token_id, &issuance.request_sha256);
            put(&mut transaction.open_table(ISSUANCES)?, &key, issuance)?;
            transaction.open_table(NAMES)?.insert(issuance.name.as_str(), &key[..])?;
            Ok(())
        })
    }

    fn issuances(&self) -> Result<Vec<Issuance>, StoreError> {
        self.read(|transaction| all(&transaction.open_table(ISSUANCES)?))
    }

    fn renew(&self, ask: &RenewAsk<'_>) -> Result<Result<Issuance, Refusal>, StoreError> {
        self.write(|transaction| {
            let mut issuances = transaction.open_table(ISSUANCES)?;
            let mut names = transaction.open_table(NAMES)?;
            let newest = names.get(ask.name)?.map(|key| key.value().to_vec());
            let Some(newest) = newest else { return Ok(Err(Refusal::UnknownCertificate)) };
            let lineage = lineage(&issuances, newest.clone())?;
            let held = lineage.iter().find(|(_, issuance)| issuance.spki_sha256 == ask.held_spki_sha256);
            let Some((_, held)) = held else { return Ok(Err(Refusal::UnknownCertificate)) };
            let mut kinds = vec![Denied::Node(held.name.clone()), Denied::Key(ask.spki_sha256)];
            kinds.push(Denied::Key(held.spki_sha256));
            kinds.extend(held.token_id.map(Denied::Token));
            if is_denied(transaction, &kinds)? {
                return Ok(Err(Refusal::Denied));
            }
            let key = issuance_key(held.token_id, &ask.request_sha256);
            if let Some(issuance) = get::<Issuance>(&issuances, &key)? {
                return Ok(if issuance.name == held.name { Ok(issuance) } else { Err(Refusal::UnknownCertificate) });
            }
            let since = ask.now_unix.saturating_sub(ask.lifetime_secs);
            let renewed = lineage.iter().filter(|(_, issuance)| issuance.replaces.is_some());
            let count = renewed.filter(|(_, issuance)| issuance.reserved_unix > since).count();
            if count >= limits::RENEWALS_PER_LIFETIME_MAX {
                return Ok(Err(Refusal::TooManyRenewals));
            }
            let issuance = ask.issuance(held, newest);
            put(&mut issuances, &key, &issuance)?;
            names.insert(issuance.name.as_str(), &key[..])?;
            prune(&mut issuances, &lineage, ask.now_unix)?;
            Ok(Ok(issuance))
        })
    }

    fn deny(&self, denial: &Denial) -> Result<(), StoreError> {
        self.write(|transaction| {
            put(&mut transaction.open_table(DENIALS)?, denial.denied.to_string().as_bytes(), denial)?;
            revise(transaction, denial.since_unix)
        })
    }

    fn allow(&self, denied: &Denied, now_unix: u64) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let was_denied = transaction.open_table(DENIALS)?.remove(denied.to_string().as_bytes())?.is_some();
            if was_denied {
                revise(transaction, now_unix)?;
            }
            Ok(was_denied)
        })
    }

    fn revise_denylist(&self, now_unix: u64) -> Result<(), StoreError> {
        self.write(|transaction| revise(transaction, now_unix))
    }

    fn denylist_version(&self) -> Result<u64, StoreError> {
        self.read(denylist_version)
    }

    fn denylist(&self) -> Result<DenylistRecord, StoreError> {
        self.read(|transaction| {
            let denials: Vec<Denial> = all(&transaction.open_table(DENIALS)?)?;
            let token = |denial: &Denial| match denial.denied {
                Denied::Token(id) => Some(id),
                _ => None,
            };
            let tokens: Vec<_> = denials.iter().filter_map(token).collect();
            let issuances = transaction.open_table(ISSUANCES)?;
            let mut keys = Vec::new();
            for id in tokens {
                // The rows of a token follow each other.
                let [first, last] = [[0; 32], [255; 32]].map(|hash| issuance_key(Some(id), &hash));
                for row in issuances.range(&first[..]..=&last[..])? {
                    keys.push(parse::<Issuance>(row?.1.value())?.spki_sha256);
                }
            }
            Ok(DenylistRecord { version: denylist_version(transaction)?, denials, keys })
        })
    }

    fn denials(&self) -> Result<Vec<Denial>, StoreError> {
        self.read(|transaction| all(&transaction.open_table(DENIALS)?))
    }
}

/// What ends a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    Redb(redb::Error),
    Row(String),
    Store(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

/// The tables of the first schema, empty.
pub(super) fn initialise(transaction: &WriteTransaction) -> Result<(), Failure> {
    for table in [TOKENS, ISSUANCES, DENIALS] {
        transaction.open_table(table)?;
    }
    transaction.open_table(NAMES)?;
    transaction.open_table(META)?.insert(SCHEMA, MIGRATIONS.len() as u64 + FIRST_SCHEMA)?;
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn is_denied(transaction: &WriteTransaction, kinds: &[Denied]) -> Result<bool, Failure> {
    let denials = transaction.open_table(DENIALS)?;
    for denied in kinds {
        if denials.get(denied.to_string().as_bytes())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A node's certificates, newest first, with their keys in the table, as far back as they are kept.
fn lineage(
    issuances: &impl ReadableTable<&'static [u8], &'static [u8]>,
    newest: Vec<u8>,
) -> Result<Vec<(Vec<u8>, Issuance)>, Failure> {
    let (mut lineage, mut next) = (Vec::new(), Some(newest));
    while let Some(key) = next.take() {
        let Some(issuance) = get::<Issuance>(issuances, &key)? else { break };
        next.clone_from(&issuance.replaces);
        lineage.push((key, issuance));
        // A row that names itself would have to be written by hand.
        if lineage.len() > 16 * limits::LINEAGE_MAX {
            break;
        }
    }
    Ok(lineage)
}

/// Forgets what is oldest in a lineage and long over.
fn prune(issuances: &mut Rows<'_>, lineage: &[(Vec<u8>, Issuance)], now_unix: u64) -> Result<(), Failure> {
    let oldest = lineage.iter().skip(limits::LINEAGE_MAX).rev();
    for (key, _) in oldest.take_while(|(_, issuance)| issuance.not_after_unix < unix(now_unix)) {
        issuances.remove(&key[..])?;
    }
    Ok(())
}

/// The next version of the denylist. It is the time, so that a state from a backup is no older than what nodes have.
fn revise(transaction: &WriteTransaction, now_unix: u64) -> Result<(), Failure> {
    let mut meta = transaction.open_table(META)?;
    let version = meta.get(DENYLIST_VERSION)?.map_or(0, |value| value.value());
    meta.insert(DENYLIST_VERSION, now_unix.max(version.saturating_add(1)))?;
    Ok(())
}

fn denylist_version(transaction: &ReadTransaction) -> Result<u64, Failure> {
    Ok(transaction.open_table(META)?.get(DENYLIST_VERSION)?.map_or(0, |value| value.value()))
}

fn unix(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

type Rows<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

fn put(table: &mut Rows<'_>, key: &[u8], row: &impl Serialize) -> Result<(), Failure> {
    let row = serde_json::to_vec(row).map_err(|error| Failure::Row(error.to_string()))?;
    table.insert(key, &row[..])?;
    Ok(())
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<T>, Failure> {
    table.get(key)?.map(|row| parse(row.value())).transpose()
}

fn all<T: DeserializeOwned>(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Vec<T>, Failure> {
    table.iter()?.map(|row| parse(row?.1.value())).collect()
}

fn parse<T: DeserializeOwned>(row: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(row).map_err(|error| Failure::Row(error.to_string()))
}

/// Tokens by their ids.
const TOKENS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tokens");

/// Certificates, reserved and issued, by [`issuance_key`].
const ISSUANCES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("issuances");

/// The last certificate of each name, as its key in the table above.
const NAMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("names");

/// The denylist, by what is denied.
const DENIALS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("denials");

/// Facts about the file itself.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// In [`META`]: the version of what the tables hold.
pub(super) const SCHEMA: &str = "schema";

/// In [`META`]: the version of the denylist, once it has one.
const DENYLIST_VERSION: &str = "denylist-version";

/// The schema before any migration.
const FIRST_SCHEMA: u64 = 1;

/// The step from each schema to the next one. A change of what rows mean adds one here.
const MIGRATIONS: &[Migration] = &[];

/// The state of thousands of nodes is a few megabytes, and it is opened for one transaction.
const CACHE_BYTES: usize = 1 << 20;

/// Between attempts to get the file.
const LOCK_PAUSE: Duration = Duration::from_millis(3);
