//! A capture, or the bytes of a lane, from anybody: shown with the keys of one session, and without.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use longhaul::crypto::RecordedKeys;
use longhaul::crypto::identity::default_provider;
use longhaul::dissect::{CaptureError, Dissector, Outcome, Place, Record, json, text};

/// The golden vectors' session id, so that its keys are looked for.
const KEYS: &str = "LONGHAUL_SUITE a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 1302\n\
    LONGHAUL_CLIENT_TRAFFIC_SECRET_0 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000000000000000000000000000000000000000000000000000000\n\
    LONGHAUL_SERVER_TRAFFIC_SECRET_0 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000000000000000000000000000000000000000000000000000000\n";

fuzz_target!(|input: (bool, &[u8])| {
    let (is_raw, bytes) = input;
    let mut dissector = Dissector::new(RecordedKeys::parse(KEYS, &default_provider()));
    let mut message_bytes = 0;
    let mut show = |place: &Place, record: &Record| {
        // What is shown is one line each, whatever a peer wrote.
        let text = text(place, record, None);
        let frame_count = match &record.outcome {
            Outcome::Opened { frames, .. } => frames.len(),
            _ => 0,
        };
        assert_eq!(text.lines().count(), 1 + frame_count);
        assert!(json(place, record).is_object());
        message_bytes += record.message_bytes;
        Ok(())
    };
    if is_raw {
        let stream: Box<dyn Read> = Box::new(std::io::Cursor::new(bytes.to_vec()));
        dissector.streams([Some(stream), None], &mut show).expect("memory can be read");
    } else if let Err(CaptureError::Io(error)) = dissector.capture(bytes, &mut show) {
        panic!("memory can be read: {error}");
    }
    assert!(message_bytes <= bytes.len(), "no message is there twice");
    let summary = dissector.finish();
    assert!(summary.opened_count + summary.closed_count <= summary.message_count);
    // Key logs are files, too.
    let keys = RecordedKeys::parse(&String::from_utf8_lossy(bytes), &default_provider());
    assert!(keys.session_count() <= bytes.len() / 32);
});
