//! Every limit of the protocol and of the node, each with its reason. What happens at a limit is said here too.
//!
//! Sizes are in bytes. The numbers that configuration can change are defaults here, the others are fixed.

use std::time::Duration;

// ---- The wire -------------------------------------------------------------------------------------------------

/// A `frame_message` on the wire, its length delimiter included. Keeps the assumption of 2^16 bytes a packet behind
/// the AEAD's confidentiality limit (RFC 9001 §B). Longer: the lane is closed with `ENCODING_ERROR`.
pub const FRAME_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A `frame_message` before the peer is authenticated. Longer: the socket is closed.
pub const FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX: usize = 16 * 1024;

/// Frames in one packet. More: the lane is closed with `ENCODING_ERROR`.
pub const FRAMES_PER_PACKET_MAX: usize = 256;

/// Ranges in one acknowledgement; a sender puts the newest first. More: `ENCODING_ERROR`.
pub const ACK_RANGES_MAX: usize = 64;

/// Text of a close or go-away. A sender cuts it, a receiver answers more with `ENCODING_ERROR`.
pub const REASON_BYTES_MAX: usize = 256;

/// Unknown fields that are skipped in one protobuf message, so that later versions may add some.
pub const UNKNOWN_FIELDS_MAX: usize = 16;

/// A message that comes alone, beside the frames: transport parameters, requests of services.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Versions in a version list.
pub const VERSIONS_MAX: usize = 16;

/// Tag of both AEADs (RFC 5116 §5.1).
pub const SEAL_TAG_BYTES: usize = 16;

// ---- The handshake --------------------------------------------------------------------------------------------

/// TLS handshake bytes of one level. rustls refuses longer messages itself. More: the socket is closed.
pub const HANDSHAKE_BYTES_PER_LEVEL_MAX: usize = 64 * 1024;

/// From accept to the first complete `frame_message`.
pub const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// From accept or dial to the sealed accept.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that every server takes of a session that begins on a TLS or QUIC channel, in all and of each stream, before the
/// client has heard of its parameters: what most requests need, in the first flight of any congestion control.
pub const EARLY_WINDOW_BYTES: u64 = 64 << 10;

/// Streams of each direction that it takes by then.
pub const EARLY_STREAMS: u64 = 16;

/// What a server holds of early data until its client's handshake is complete: all that may come early, and the frames
/// around it. More: `FLOW_CONTROL_ERROR`.
pub const EARLY_HELD_BYTES_MAX: usize = 2 * EARLY_WINDOW_BYTES as usize;

/// Bytes of early packets that a server throws away when it does not accept them: what a client may send, in small
/// packets and padded. More: the socket is closed.
pub const EARLY_SKIPPED_BYTES_MAX: usize = 4 * EARLY_WINDOW_BYTES as usize;

/// Tickets for each complete handshake: one for a session, and one for another that is begun beside it.
pub const TICKETS_PER_HANDSHAKE: u32 = 2;

/// Tickets that a server keeps of one client: those of its last sessions. The oldest goes.
pub const TICKETS_PER_PEER_MAX: usize = 16;

/// Tickets that a server keeps in all, of 2 KiB each: 32 MiB. The oldest goes.
pub const TICKETS_MAX: usize = 16 * 1024;

/// Tickets that a client keeps for one server and kind of channel. The oldest goes.
pub const TICKETS_KEPT_MAX: usize = 8;

/// How long after a full handshake its tickets, and those that follow from them, are good for (RFC 8446 §4.6.1 allows
/// seven days): within it a node that left the trust domain is noticed at the latest.
pub const TICKET_LINEAGE_TIME: Duration = Duration::from_secs(86_400);

/// From a join's first byte to the verified answer.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(3);

/// The same for a further lane of a channel that carries data already: on a slow line the transport repairs what the first lane
/// has sent meanwhile. Nothing else would dial it again, and its place in the session is one that the peer has proved to own.
pub const FURTHER_LANE_JOIN_TIMEOUT: Duration = TRANSPORT_WORD_MAX;

// ---- Streams and flow control ---------------------------------------------------------------------------------

/// Bytes that a peer may send on one stream before the first window update.
pub const STREAM_WINDOW_BYTES: u64 = 1024 * 1024;

/// Bytes that a peer may have outstanding on one stream after tuning. 150 ms × 1 Gbit/s are 18.75 MB, and a window
/// has to be some times that, as news of more is late. Where packets are lost, several times as much waits behind gaps.
pub const STREAM_WINDOW_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Bytes that a peer may send in all streams of a session before the first window update.
pub const SESSION_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// The session's window after tuning: room for a stream at its largest and others beside it.
pub const SESSION_WINDOW_BYTES_MAX: u64 = 192 * 1024 * 1024;

/// Streams of one direction that a peer may have open at once.
pub const STREAMS_MAX: u64 = 4096;

/// Streams that the peer opened and the application has not accepted yet. More: `EXCESSIVE_LOAD`.
pub const STREAMS_UNACCEPTED_MAX: usize = 4096;

/// Gaps in the received bytes of one stream. More: `EXCESSIVE_LOAD` (quinn RUSTSEC-2026-0185).
pub const STREAM_GAPS_MAX: usize = 1024;

/// A writer waits while more than this of its stream is unsent: enough to keep the lanes busy, little enough to stay in
/// the caches.
pub const STREAM_UNSENT_BYTES_MAX: u64 = 512 * 1024;

/// Datagrams are as large as UDP over IPv4 has them: 65,535 bytes less the heads of IP and UDP. A longer one is refused by
/// the sender, and answered with `ENCODING_ERROR`.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// A piece of a datagram, unless it is the last one: few enough to a datagram that keeping them costs little more than
/// their bytes, and small enough for any packet. Less: `ENCODING_ERROR`.
pub const DATAGRAM_PIECE_BYTES_MIN: usize = 1024;

/// A datagram that has waited longer for a lane is dropped: whoever waited for it has given up or asked again.
pub const DATAGRAM_AGE_MAX: Duration = Duration::from_millis(500);

/// What a datagram in a queue counts beside its bytes: a flood of empty ones needs room, too.
pub const DATAGRAM_OVERHEAD_BYTES: usize = 128;

/// Datagrams of one flow that wait for lanes, or at the receiver for the application, in bytes: what a line of 1 Gbit/s
/// brings in 30 ms. Above, the oldest are dropped.
pub const DATAGRAM_FLOW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same for all flows of a session. Above, the oldest of the flow that holds the most is dropped.
pub const DATAGRAM_SESSION_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Datagrams that are kept for a stream that the application has not asked for any: they have overtaken the request that
/// comes on it. Above, the oldest are dropped.
pub const DATAGRAM_EARLY_BYTES_MAX: usize = 128 * 1024;

/// Pieces of datagrams that are not complete, in bytes, over a session. Above, the oldest datagram is dropped.
pub const DATAGRAM_PIECES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Datagrams of a session that are not complete. Above, the oldest is dropped.
pub const DATAGRAMS_INCOMPLETE_MAX: usize = 256;

/// How long the missing pieces of a datagram are waited for: the lanes that carry them may differ by a repaired loss.
pub const DATAGRAM_INCOMPLETE_AGE_MAX: Duration = Duration::from_secs(1);

/// A received slice is copied when it is smaller than this part of the allocation that it pins.
pub const PINNED_SHARE_MIN: usize = 4;

// ---- Load by an authenticated peer ----------------------------------------------------------------------------

/// Resets and stops a second, after a burst (h2 rapid reset, RUSTSEC-2023-0034). More: `EXCESSIVE_LOAD`.
pub const RESETS_PER_SECOND_MAX: u32 = 4096;

/// Frames that carry no data and ask for work (pings, empty stream data, blocked signals, updates that change
/// nothing), a second, after a burst. More: `EXCESSIVE_LOAD`.
pub const IDLE_FRAMES_PER_SECOND_MAX: u32 = 200;

/// Stream bytes that justify one more of these frames: a fast link with many streams says often that it is blocked.
pub const BYTES_PER_IDLE_FRAME: u64 = 16 * 1024;

/// Burst of the two rates above.
pub const LOAD_BURST: u32 = 8192;

/// Pongs that wait to be sent; further pings are answered by the newest one.
pub const PONGS_QUEUED_MAX: usize = 16;

// ---- Lanes ----------------------------------------------------------------------------------------------------

/// Lanes of a session that may live at once: fifteen QUIC channels of four lanes.
pub const LANES_MAX: u32 = 64;

/// Lanes that a link keeps up: one place is left, so that a replacement can join before a suspect lane goes.
pub const LINK_LANES_MAX: u32 = LANES_MAX - 1;

/// Weight of a lane under the scheduler `weighted`.
pub const LANE_WEIGHT_MAX: u32 = 1000;

/// Priority of a lane: far more steps than a link has addresses.
pub const LANE_PRIORITY_MAX: u32 = 255;

/// Lane ids that a server grants in advance. Far more than may live at once: during an outage each attempt to join
/// uses one up, and no new credit can arrive.
pub const LANE_CREDIT: u32 = 4096;

/// Longest time that an acknowledgement is held back on a healthy lane.
pub const ACK_DELAY_MAX: Duration = Duration::from_millis(25);

/// Received stream bytes after which an acknowledgement is due at once.
pub const ACK_EVERY_BYTES: u64 = 256 * 1024;

/// Packets of a fresh lane that are acknowledged at once.
pub const ACK_AT_ONCE_PACKETS: u64 = 16;

/// Silence after which a lane is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Silence after which a lane is dead.
pub const LANE_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Shortest time without an acknowledgement after which a lane is suspect.
pub const SUSPECT_TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// The same for lanes of QUIC connections, which repair losses themselves: three round trips between continents.
pub const QUIC_SUSPECT_TIMEOUT_MIN: Duration = Duration::from_millis(700);

/// Bytes on their way on all lanes of a QUIC connection: three round trips of 1 Gbit/s and 125 ms, as what follows a
/// datagram that was lost twice is held back for so long.
pub const QUIC_IN_FLIGHT_BYTES_MAX: u64 = 48 << 20;

/// Bytes that a QUIC connection holds because something before them is missing. The peer sends no more than
/// `QUIC_IN_FLIGHT_BYTES_MAX` ahead, padding apart.
pub const QUIC_REORDER_BYTES_MAX: usize = 64 << 20;

/// How long a lane may be without an acknowledgement while others of its channel have some: a datagram of it was lost
/// again and again, and each repair takes a round trip. Beyond it the peer does not read the lane.
pub const LANE_REPAIR_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the word of a transport, that its peer acknowledges packets, stands in for the session's own acknowledgements. A
/// burst of 64 KiB that a line of 100 kbit/s has lost takes 5 s to be sent again, and a transport begins that slowly. A peer whose
/// transport alone works is found after this time.
pub const TRANSPORT_WORD_MAX: Duration = Duration::from_secs(20);

/// Shortest time without an acknowledgement after which a lane is dead, when data waits for one.
pub const DEAD_TIMEOUT_MIN: Duration = Duration::from_secs(6);

/// A deadline that is missed by more than this, while nothing else happens either, shows that this side did not run:
/// its process was stopped, or its machine paused. A machine that is merely busy lets a task wait for less. The lanes
/// get the time back, as their acknowledgements may have waited to be read.
pub const STALL_MIN: Duration = Duration::from_millis(25);

/// Time without any channel after which a session's streams fail.
pub const SURVIVE: Duration = Duration::from_secs(120);

/// How long a server keeps a session without channels whose client has begun another one and has never shown that it has the
/// accept of this one: without it, it can never come back. One that has is back well within this time, as the path works.
pub const SURVIVE_UNCONFIRMED: Duration = Duration::from_secs(10);

/// The longest life of a session: its keys step on, but whoever got hold of them once follows every step.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(86_400);

/// A session that a certificate ends sooner than that is replaced before its end if it lives for as long as this at least:
/// one that follows would live for a tenth of it only, unless the certificate was renewed meanwhile.
pub const SESSION_AGE_REPLACED_MIN: Duration = Duration::from_secs(60);

/// Sent packets that are remembered for a dead lane, so that a late acknowledgement still saves a repetition.
pub const DEAD_LANE_MEMORY: Duration = Duration::from_secs(60);

/// Samples of one sort that a session keeps until they are read: a second of forty lanes.
pub const SAMPLES_MAX: usize = 8192;

/// Time between two round trips of a lane that are kept as samples: requests bring thousands of acknowledgements a second,
/// and a distribution over time needs no more than this.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// Samples that are kept of waiting times before sending: enough for a distribution, few enough that taking them costs nothing.
pub const QUEUE_SAMPLES_MAX: usize = 512;

// ---- Bandwidth ------------------------------------------------------------------------------------------------

/// The least bandwidth that can be a limit, in bytes a second: a smaller one keeps a packet waiting for seconds.
pub const BANDWIDTH_BYTES_MIN: u64 = 8000;

/// The largest, 1000 Gbit/s: far beyond any line, and sums stay exact.
pub const BANDWIDTH_BYTES_MAX: u64 = 125_000_000_000;

/// What may leave at once after a pause, in time of the limit: longer than timers of a busy machine are late, so that the
/// rate is kept, and short enough that the queue of a router takes it.
pub const BANDWIDTH_BURST: Duration = Duration::from_millis(50);

/// What a packet carries under a limit, in time of the limit: urgent bytes wait for no longer behind others.
pub const BANDWIDTH_PACKET_TIME: Duration = Duration::from_millis(10);

/// The same at least, in bytes, however low the limit: smaller packets would be mostly heads.
pub const PACED_PACKET_BYTES_MIN: usize = 2048;

/// How long somebody waits at most for a share before asking again: others may have stopped to use theirs.
pub const SHARE_RETRY_MAX: Duration = Duration::from_millis(20);

// ---- Keys -----------------------------------------------------------------------------------------------------

/// Packets of a session under one key: half the limit of AES-GCM (RFC 9001 §6.6).
pub const KEY_PACKETS_MAX: u64 = 1 << 22;

/// Bytes of a session under one key.
pub const KEY_BYTES_MAX: u64 = 64 << 30;

/// Time under one key.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// How long keys of the previous epoch stay usable for lanes that have not switched.
pub const PREVIOUS_KEY_TIME: Duration = Duration::from_secs(10);

// ---- Services -------------------------------------------------------------------------------------------------

/// Targets of one service: each may have a task that checks it. More: the configuration is refused.
pub const TARGETS_MAX: usize = 64;

/// Weight of a target among those of its service.
pub const TARGET_WEIGHT_MAX: u32 = 1000;

/// The first line of the answer to a health check. Longer: the check has failed.
pub const CHECK_LINE_BYTES_MAX: usize = 1024;

// ---- Enrolment ------------------------------------------------------------------------------------------------

/// A certificate request, DER. Ours has 200 bytes; more is only needed for keys that are not taken. Longer: refused.
pub const CERTIFICATE_REQUEST_BYTES_MAX: usize = 2048;

/// The answer to an enrolment: two certificates and some addresses. Longer: the joining side gives up.
pub const ENROLL_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// From the client's hello to its whole request, and from there to the answer: each as long as a handshake may take.
pub const ENROLL_TIMEOUT: Duration = Duration::from_secs(10);

/// Wrong proofs for one token in a row, after which it is locked. A proof cannot be guessed; who sends wrong ones tries
/// something else.
pub const WRONG_PROOFS_MAX: u32 = 5;

/// How long a token is locked then, for right proofs too.
pub const WRONG_PROOFS_LOCK: Duration = Duration::from_secs(10 * 60);

/// How long a token is good for: a month covers machines that are shipped.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How many machines a token lets in.
pub const TOKEN_USES_MAX: u32 = 10_000;

/// Roles that a token gives.
pub const TOKEN_ROLES_MAX: usize = 16;

/// How long certificates of joined nodes hold: what leaves the trust domain is gone a day later.
pub const NODE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(86_400);

/// How long they may hold by configuration.
pub const NODE_CERTIFICATE_LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Addresses that a hub tells a joined node to dial. A sender leaves out the others, a receiver refuses more.
pub const HUB_ADDRESSES_MAX: usize = 8;

/// Size of one of them: a host name of 253 bytes, with scheme and port.
pub const HUB_ADDRESS_BYTES_MAX: usize = 300;

/// Trust anchors of a domain that a renewal brings; two while one authority replaces another.
pub const TRUST_ANCHORS_MAX: usize = 8;

/// Size of one of them, DER. Ours have 400 bytes; those with long RSA keys have 2000.
pub const TRUST_ANCHOR_BYTES_MAX: usize = 4096;

/// Names and keys on a denylist together. Whoever has more to deny makes a new authority.
pub const DENYLIST_ENTRIES_MAX: usize = 8192;

/// A denylist of as many of the longest names.
pub const DENYLIST_BYTES_MAX: usize = 640 * 1024;

/// The same with its signature. A stream's window takes it.
pub const SIGNED_DENYLIST_BYTES_MAX: usize = DENYLIST_BYTES_MAX + 2 * 1024;

/// The answer to a renewal: anchors, a certificate and a denylist. Longer: the node gives up.
pub const RENEW_ANSWER_BYTES_MAX: usize =
    SIGNED_DENYLIST_BYTES_MAX + (TRUST_ANCHORS_MAX + 1) * (TRUST_ANCHOR_BYTES_MAX + 16);

/// Certificates that a node gets by renewal within the lifetime of one. It needs two; the others are for what was lost
/// on its way, and for operators who try.
pub const RENEWALS_PER_LIFETIME_MAX: usize = 20;

/// Certificates of one node that are remembered, besides those that hold: any of them shows whose key it was.
pub const LINEAGE_MAX: usize = 64;

/// Longest pause between attempts to renew a certificate. A certificate of a day leaves some forty of them.
pub const RENEW_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// A file of the audit log: some 80,000 lines. Longer: it is put aside.
pub const AUDIT_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Files of the audit log. Older ones are dropped: whoever has to keep them copies them, or collects the log elsewhere.
pub const AUDIT_FILES_MAX: usize = 16;

/// How long is waited for another process that uses the state of the authority; a transaction takes milliseconds.
pub const STATE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(CERTIFICATE_REQUEST_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(DENYLIST_ENTRIES_MAX * 66 + 1024 < DENYLIST_BYTES_MAX);
const _: () = assert!(SIGNED_DENYLIST_BYTES_MAX as u64 <= STREAM_WINDOW_BYTES);
const _: () = assert!(NODE_CERTIFICATE_LIFETIME.as_secs() <= NODE_CERTIFICATE_LIFETIME_MAX.as_secs());
const _: () = assert!(SUSPECT_TIMEOUT_MIN.as_millis() > ACK_DELAY_MAX.as_millis());
const _: () = assert!(DATAGRAM_EARLY_BYTES_MAX >= DATAGRAM_BYTES_MAX + DATAGRAM_OVERHEAD_BYTES);
const _: () = assert!(DATAGRAM_FLOW_BYTES_MAX <= DATAGRAM_SESSION_BYTES_MAX);
const _: () = assert!(DATAGRAM_PIECES_BYTES_MAX >= DATAGRAM_BYTES_MAX);
const _: () = assert!(SHARE_RETRY_MAX.as_millis() < BANDWIDTH_BURST.as_millis());
const _: () = assert!(BANDWIDTH_PACKET_TIME.as_millis() * 2 <= BANDWIDTH_BURST.as_millis());
const _: () = assert!(PACED_PACKET_BYTES_MIN < FRAME_MESSAGE_BYTES_MAX);
const _: () = assert!(STALL_MIN.as_millis() < SUSPECT_TIMEOUT_MIN.as_millis());
const _: () = assert!(STREAM_WINDOW_BYTES_MAX <= SESSION_WINDOW_BYTES_MAX);
const _: () = assert!(STREAM_WINDOW_BYTES_MAX as u128 >= 2 * 150 * 1_000_000_000 / 8 / 1000);
const _: () = assert!(FRAME_MESSAGE_BYTES_BEFORE_AUTHENTICATION_MAX <= FRAME_MESSAGE_BYTES_MAX);
