//! The store through its whole contract, with crashes at every write and every sync.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadableTable, StorageBackend, WriteTransaction};

use super::redb::{META, Place, SCHEMA, initialise};
use super::{Ask, RedbStore, RenewAsk, Store, StoreError};
use crate::base::limits;
use crate::crypto::token::TokenId;
use crate::enroll::{Denial, Denied, Issuance, Refusal, TokenRecord};

const NOW: u64 = 1_800_000_000;

fn id(number: u8) -> TokenId {
    TokenId::from_bytes([number; 10])
}

fn token(number: u8, name: &str, uses_max: u32) -> TokenRecord {
    TokenRecord {
        id: id(number),
        public_key: [number; 32],
        is_for_guests: false,
        name: name.parse().unwrap(),
        roles: Vec::new(),
        address_range: None,
        created_unix: NOW - 10,
        not_after_unix: NOW + 3600,
        uses_max,
        use_count: 0,
        revoked_unix: None,
    }
}

fn ask(token: u8, request: u8, name: &str) -> Ask<'_> {
    Ask {
        token_id: id(token),
        request_sha256: [request; 32],
        spki_sha256: [request; 32],
        name,
        address: "192.0.2.7".parse().unwrap(),
        now_unix: NOW,
        serial: [request; 16],
        not_before_unix: NOW as i64 - 300,
        not_after_unix: NOW as i64 + 86_400,
    }
}

fn made() -> (tempfile::TempDir, RedbStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::create(&directory.path().join("state.redb")).unwrap();
    (directory, store)
}

/// As after a crash: nothing but the file is left.
fn reopened(directory: &tempfile::TempDir, store: RedbStore) -> RedbStore {
    drop(store);
    RedbStore::open(&directory.path().join("state.redb")).unwrap()
}

#[test]
fn every_step_survives_the_end_of_the_process() {
    let (directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    let store = reopened(&directory, store);
    let reserved = store.reserve(&ask(1, 5, "")).unwrap().unwrap();
    assert_eq!((reserved.name.as_str(), &reserved.certificate), ("dc-b", &None));
    let store = reopened(&directory, store);
    // The same request again, before there was a certificate: the same reservation, although its asker proposes others.
    let again = Ask { serial: [99; 16], not_after_unix: 1, ..ask(1, 5, "dc-b") };
    assert_eq!(store.reserve(&again).unwrap().unwrap(), reserved);
    assert_eq!(store.token(id(1)).unwrap().unwrap().use_count, 1);
    assert_eq!(store.commit(id(1), [5; 32], b"first").unwrap(), b"first");
    let store = reopened(&directory, store);
    assert_eq!(store.commit(id(1), [5; 32], b"second").unwrap(), b"first");
    assert_eq!(store.reserve(&ask(1, 5, "")).unwrap().unwrap().certificate.as_deref(), Some(&b"first"[..]));
    assert_eq!(store.reserve(&ask(1, 6, "")).unwrap(), Err(Refusal::UsedUp));
    assert_eq!(store.issuances().unwrap().len(), 1);
    assert_eq!(store.tokens().unwrap().len(), 1);
}

#[test]
fn a_refusal_changes_nothing() {
    let (_directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    assert!(matches!(store.add_token(&token(1, "dc-b", 1)), Err(StoreError::TokenExists { .. })));
    assert_eq!(store.reserve(&ask(2, 5, "")).unwrap(), Err(Refusal::UnknownToken));
    assert_eq!(store.reserve(&ask(1, 5, "dc-c")).unwrap(), Err(Refusal::WrongName));
    let late = Ask { now_unix: NOW + 3600, ..ask(1, 5, "") };
    assert_eq!(store.reserve(&late).unwrap(), Err(Refusal::Expired));
    assert_eq!(store.token(id(1)).unwrap().unwrap(), token(1, "dc-b", 1));
    assert!(matches!(store.commit(id(1), [5; 32], b"x"), Err(StoreError::NotReserved { .. })));
}

#[test]
fn what_expired_or_was_revoked_is_not_given_again() {
    let (_directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    store.reserve(&ask(1, 5, "")).unwrap().unwrap();
    store.commit(id(1), [5; 32], b"first").unwrap();
    let late = Ask { now_unix: NOW + 3600, ..ask(1, 5, "") };
    assert_eq!(store.reserve(&late).unwrap(), Err(Refusal::Expired));
    assert_eq!(store.revoke_token(id(1), NOW).unwrap().unwrap().revoked_unix, Some(NOW));
    assert_eq!(store.revoke_token(id(1), NOW + 1).unwrap().unwrap().revoked_unix, Some(NOW));
    assert_eq!(store.revoke_token(id(2), NOW).unwrap(), None);
    assert_eq!(store.reserve(&ask(1, 5, "")).unwrap(), Err(Refusal::Revoked));
}

#[test]
fn tokens_of_guests_that_were_taken_back_are_known_until_they_would_have_ended() {
    let (_directory, store) = made();
    for number in 1..=4 {
        store.add_token(&TokenRecord { is_for_guests: number != 4, ..token(number, "laptop", 9) }).unwrap();
    }
    assert!(store.revoked_guest_tokens(NOW).unwrap().is_empty());
    store.revoke_token(id(1), NOW).unwrap();
    store.revoke_token(id(4), NOW).unwrap();
    store.deny(&Denial { denied: Denied::Token(id(2)), since_unix: NOW }).unwrap();
    assert_eq!(store.revoked_guest_tokens(NOW).unwrap(), [id(1), id(2)]);
    assert!(store.revoked_guest_tokens(NOW + 3600).unwrap().is_empty());
    assert!(store.allow(&Denied::Token(id(2)), NOW).unwrap());
    assert_eq!(store.revoked_guest_tokens(NOW).unwrap(), [id(1)]);
}

#[test]
fn a_name_of_a_pattern_belongs_to_one_key_while_its_certificate_holds() {
    let (_directory, store) = made();
    store.add_token(&token(1, "edge-*", 9)).unwrap();
    store.add_token(&token(2, "*", 9)).unwrap();
    store.reserve(&ask(1, 5, "edge-1")).unwrap().unwrap();
    assert_eq!(store.reserve(&ask(1, 5, "edge-2")).unwrap(), Err(Refusal::WrongName));
    assert_eq!(store.reserve(&ask(1, 6, "edge-1")).unwrap(), Err(Refusal::NameTaken));
    assert_eq!(store.reserve(&ask(2, 6, "edge-1")).unwrap(), Err(Refusal::NameTaken));
    assert_eq!(store.token(id(1)).unwrap().unwrap().use_count, 1);
    store.reserve(&ask(2, 5, "edge-1")).unwrap().unwrap();
    let hub = Issuance { token_id: None, name: "hub".to_owned(), ..store.issuances().unwrap().remove(0) };
    store.record(&hub).unwrap();
    assert_eq!(store.reserve(&ask(2, 7, "hub")).unwrap(), Err(Refusal::NameTaken));
    // Whoever made a token for a name alone meant this machine to have it.
    store.add_token(&token(3, "edge-1", 1)).unwrap();
    store.reserve(&ask(3, 8, "")).unwrap().unwrap();
}

#[test]
fn what_is_denied_gets_nothing() {
    for denied in [Denied::Node("dc-b".to_owned()), Denied::Key([5; 32]), Denied::Token(id(1))] {
        let (directory, store) = made();
        store.add_token(&token(1, "dc-b", 1)).unwrap();
        let denial = Denial { denied, since_unix: NOW };
        store.deny(&denial).unwrap();
        let store = reopened(&directory, store);
        assert_eq!(store.denials().unwrap(), [denial]);
        assert_eq!(store.reserve(&ask(1, 5, "")).unwrap(), Err(Refusal::Denied));
    }
}

#[test]
fn fifty_at_once_get_as_many_as_there_are_uses() {
    let (directory, store) = made();
    store.add_token(&token(1, "edge-*", 7)).unwrap();
    // A second handle, as another process would have one.
    let other = RedbStore::open(&directory.path().join("state.redb")).unwrap();
    let got: usize = thread::scope(|scope| {
        let asking: Vec<_> = (0..50u8)
            .map(|number| {
                let store = if number % 2 == 0 { &store } else { &other };
                scope.spawn(move || {
                    let name = format!("edge-{number}");
                    store.reserve(&ask(1, number, &name)).unwrap().is_ok()
                })
            })
            .collect();
        asking.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(got, 7);
    assert_eq!(store.token(id(1)).unwrap().unwrap().use_count, 7);
    assert_eq!(store.issuances().unwrap().len(), 7);
}

#[test]
fn what_is_no_state_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Missing { .. })));
    assert!(matches!(RedbStore::create(&directory.path().join("no/state.redb")), Err(StoreError::Io { .. })));
    RedbStore::create(&path).unwrap();
    assert!(matches!(RedbStore::create(&path), Err(StoreError::Exists { .. })));
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(RedbStore::open(&path).is_err());
    assert!(RedbStore::open(directory.path()).is_err());
}

#[cfg(unix)]
#[test]
fn a_state_that_may_not_be_written_is_said_so() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, store) = made();
    let path = directory.path().join("state.redb");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    // The superuser may write whatever the mode says.
    if std::fs::OpenOptions::new().write(true).open(&path).is_err() {
        let error = store.add_token(&token(1, "dc-b", 1)).unwrap_err();
        assert!(error.to_string().contains("belong to the user"), "{error}");
    }
}

#[test]
fn schemas_step_up_and_never_down() {
    fn rename(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(META)?.insert("renamed", 1)?;
        Ok(())
    }

    let (directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    drop(store);
    let path = directory.path().join("state.redb");
    let newer = RedbStore::open_with(&path, &[rename, rename]).unwrap();
    let meta = |key: &'static str| {
        let value = newer.write(|transaction| {
            let table = transaction.open_table(META)?;
            Ok(table.get(key)?.map(|value| value.value()))
        });
        value.unwrap()
    };
    assert_eq!((meta(SCHEMA), meta("renamed")), (Some(3), Some(1)));
    let newer = RedbStore::open_with(&path, &[rename, rename]).unwrap();
    assert_eq!(newer.token(id(1)).unwrap(), Some(token(1, "dc-b", 1)));
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 3, known: 1, .. }), "{error}");
}

// ---- Crashes ------------------------------------------------------------------------------------------------------

/// A disk that stops at some operation. What was written after the last sync is lost with it, or is not: disks do either.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Clone, Debug, Default)]
struct DiskState {
    seen: Vec<u8>,
    synced: Vec<u8>,
    operations_left: Option<usize>,
}

impl Disk {
    fn store(&self) -> RedbStore {
        RedbStore::with(Path::new("disk"), self.clone(), &[])
    }

    /// A copy that stops after so many operations.
    fn stopping_after(&self, operations: usize) -> Self {
        let state = self.0.lock().unwrap().clone();
        Self(Arc::new(Mutex::new(DiskState { operations_left: Some(operations), ..state })))
    }

    /// What is there after the crash.
    fn restarted(&self, is_cache_lost: bool) -> Self {
        let state = self.0.lock().unwrap();
        let bytes = if is_cache_lost { &state.synced } else { &state.seen }.clone();
        Self(Arc::new(Mutex::new(DiskState { seen: bytes.clone(), synced: bytes, operations_left: None })))
    }

    fn change(&self, change: impl FnOnce(&mut DiskState)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if let Some(left) = &mut state.operations_left {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        change(&mut state);
        Ok(())
    }
}

impl Place for Disk {
    fn open(&self) -> Result<Database, DatabaseError> {
        redb::Builder::new().create_with_backend(self.clone())
    }

    fn open_to_read(&self) -> Result<ReadOnlyDatabase, DatabaseError> {
        redb::Builder::new().open_read_only_with_backend(self.clone())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let start = offset as usize;
        out.copy_from_slice(state.seen.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| state.seen.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|state| state.synced.clone_from(&state.seen))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|state| state.seen[offset as usize..][..data.len()].copy_from_slice(data))
    }
}

/// Runs `step` on a disk that stops at each of its operations in turn: afterwards the disk has all of it or nothing, and
/// all of it if the step said so. Running it again completes it.
fn crash_at_every_operation(disk: &Disk, step: impl Fn(&RedbStore) -> Result<(), StoreError>) {
    let uses = |store: &RedbStore| store.token(id(1)).unwrap().unwrap().use_count;
    let facts = |store: &RedbStore| (uses(store), store.issuances().unwrap());
    let before = facts(&disk.store());
    let complete = disk.stopping_after(usize::MAX);
    step(&complete.store()).unwrap();
    let after = facts(&complete.store());
    let mut outcomes = BTreeSet::new();
    for operations in 0.. {
        let crashing = disk.stopping_after(operations);
        let outcome = step(&crashing.store());
        if let Err(error) = &outcome {
            assert!(error.to_string().contains("disk"), "{error}");
        }
        for is_cache_lost in [false, true] {
            let store = crashing.restarted(is_cache_lost).store();
            let found = facts(&store);
            assert!(found == after || (found == before && outcome.is_err()), "{operations}: {found:?}");
            outcomes.insert(found == after);
            step(&store).unwrap();
            assert_eq!(facts(&store), after, "{operations}");
        }
        if crashing.0.lock().unwrap().operations_left > Some(0) {
            break;
        }
    }
    assert_eq!(outcomes, BTreeSet::from([false, true]), "the crashes were on both sides of the commit");
}

#[test]
fn a_crash_at_any_write_leaves_all_or_nothing() {
    let disk = Disk::default();
    disk.store().write(initialise).unwrap();
    disk.store().add_token(&token(1, "dc-b", 1)).unwrap();
    crash_at_every_operation(&disk, |store| store.reserve(&ask(1, 5, "")).map(|reserved| assert!(reserved.is_ok())));
    disk.store().reserve(&ask(1, 5, "")).unwrap().unwrap();
    crash_at_every_operation(&disk, |store| store.commit(id(1), [5; 32], b"certificate").map(|_| ()));
}

fn renew_ask(held: u8, request: u8) -> RenewAsk<'static> {
    RenewAsk {
        name: "dc-b",
        held_spki_sha256: [held; 32],
        request_sha256: [request; 32],
        spki_sha256: [request; 32],
        address: None,
        now_unix: NOW,
        lifetime_secs: 86_400,
        anchors_sha256: [7; 32],
        serial: [request; 16],
        not_before_unix: NOW as i64 - 300,
        not_after_unix: NOW as i64 + 86_400,
    }
}

#[test]
fn a_node_renews_with_any_of_its_certificates_until_the_name_is_given_anew() {
    let (directory, store) = made();
    store.add_token(&token(1, "dc-b", 2)).unwrap();
    store.reserve(&ask(1, 1, "")).unwrap().unwrap();
    let second = store.renew(&renew_ask(1, 2)).unwrap().unwrap();
    assert_eq!((second.token_id, second.name.as_str()), (Some(id(1)), "dc-b"));
    let store = reopened(&directory, store);
    assert_eq!(store.commit(id(1), [2; 32], b"second").unwrap(), b"second");
    // The answer was lost: the same again, and another one with the key that the node still has.
    assert_eq!(store.renew(&renew_ask(1, 2)).unwrap().unwrap().certificate.unwrap(), b"second");
    store.renew(&renew_ask(1, 3)).unwrap().unwrap();
    store.renew(&renew_ask(2, 4)).unwrap().unwrap();
    assert_eq!(store.renew(&renew_ask(9, 5)).unwrap(), Err(Refusal::UnknownCertificate));
    assert_eq!(store.token(id(1)).unwrap().unwrap().use_count, 1, "renewals use up no token");
    // Another machine takes the name.
    store.reserve(&ask(1, 6, "")).unwrap().unwrap();
    for held in 1..5 {
        assert_eq!(store.renew(&renew_ask(held, 7)).unwrap(), Err(Refusal::UnknownCertificate));
    }
    assert!(store.renew(&renew_ask(6, 7)).unwrap().is_ok());
}

#[test]
fn who_is_denied_does_not_renew() {
    let (_directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    store.reserve(&ask(1, 1, "")).unwrap().unwrap();
    assert_eq!(store.denylist_version().unwrap(), 0);
    let mut version = 0;
    for denied in [Denied::Node("dc-b".to_owned()), Denied::Key([1; 32]), Denied::Key([2; 32]), Denied::Token(id(1))] {
        store.deny(&Denial { denied: denied.clone(), since_unix: NOW }).unwrap();
        assert_eq!(store.renew(&renew_ask(1, 2)).unwrap(), Err(Refusal::Denied), "{denied}");
        let list = store.denylist().unwrap();
        assert!(list.version > version, "each change is a new version");
        version = list.version;
        assert_eq!(list.denials.len(), 1);
        assert_eq!(list.keys, if denied == Denied::Token(id(1)) { vec![[1; 32]] } else { Vec::new() });
        assert!(store.allow(&denied, NOW).unwrap() && !store.allow(&denied, NOW).unwrap());
    }
    assert!(store.denylist_version().unwrap() > version);
    assert!(store.renew(&renew_ask(1, 2)).unwrap().is_ok());
}

#[test]
fn renewals_are_bounded_and_old_certificates_are_forgotten() {
    let (_directory, store) = made();
    store.add_token(&token(1, "dc-b", 1)).unwrap();
    store.reserve(&ask(1, 1, "")).unwrap().unwrap();
    let limit = u8::try_from(limits::RENEWALS_PER_LIFETIME_MAX).unwrap();
    for request in 2..2 + limit {
        store.renew(&renew_ask(1, request)).unwrap().unwrap();
    }
    assert_eq!(store.renew(&renew_ask(1, 99)).unwrap(), Err(Refusal::TooManyRenewals));
    let mut held = 1 + limit;
    for day in 1..150_u64 {
        let now_unix = NOW + day * 100_000;
        let request = held.wrapping_add(1);
        let (start, end) = (now_unix as i64 - 300, now_unix as i64 + 86_400);
        let ask = RenewAsk { now_unix, not_before_unix: start, not_after_unix: end, ..renew_ask(held, request) };
        store.renew(&ask).unwrap().unwrap();
        held = request;
    }
    assert!(store.issuances().unwrap().len() <= limits::LINEAGE_MAX + 2);
}
