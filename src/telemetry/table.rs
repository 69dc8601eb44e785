//! The instruments: every one that there is, with its kind, unit, attributes and meaning. What is measured elsewhere is
//! found here by name; `docs/reference/metrics.md` is held against this table by a test.

use super::histogram;

/// How values of an instrument are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of the node.
    Counter,
    /// Is what it is now; sums over attributes make sense.
    UpDownCounter,
    /// Is what it is now.
    Gauge,
    /// A distribution of times.
    Seconds,
    /// A distribution of outages' lengths.
    OutageSeconds,
    /// A distribution of shares.
    Ratio,
}

impl Kind {
    /// The word for it in the reference.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
            Self::Seconds | Self::OutageSeconds | Self::Ratio => "histogram",
        }
    }

    /// The boundaries of a histogram's buckets, unless others are configured.
    #[must_use]
    pub fn boundaries(self) -> Option<&'static [f64]> {
        match self {
            Self::Seconds => Some(&histogram::SECONDS),
            Self::OutageSeconds => Some(&histogram::OUTAGE_SECONDS),
            Self::Ratio => Some(&histogram::RATIO),
            Self::Counter | Self::UpDownCounter | Self::Gauge => None,
        }
    }
}

/// One instrument.
#[derive(Clone, Copy, Debug)]
pub struct Instrument {
    /// Its name, after OpenTelemetry's conventions: dotted, singular, no unit in it.
    pub name: &'static str,
    /// How its values are to be understood.
    pub kind: Kind,
    /// Their unit, in UCUM.
    pub unit: &'static str,
    /// The names of its attributes.
    pub attributes: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

impl Instrument {
    /// Whether values are whole numbers.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !matches!(self.unit, "s" | "1" | "By/s")
    }
}

/// The instrument of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Instrument> {
    INSTRUMENTS.iter().find(|instrument| instrument.name == name)
}

macro_rules! instruments {
    ($($name:literal $kind:ident $unit:literal [$($attribute:literal)*] $meaning:literal;)*) => {
        /// All instruments.
        pub const INSTRUMENTS: &[Instrument] = &[$(Instrument {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            attributes: &[$($attribute),*],
            meaning: $meaning,
        }),*];
    };
}

instruments! {
    "longhaul.channel.rtt" Seconds "s" ["peer" "channel" "transport"]
        "Round trips, by the session's own acknowledgements and pings, one each 5 ms; the peer's delay is taken off";
    "longhaul.channel.transport.rtt" Seconds "s" ["peer" "channel" "transport"]
        "Round trips, by the transport: single ones of QUIC's acknowledgements, the kernel's smoothed one each second of TCP";
    "longhaul.link.ack.delay" Seconds "s" ["peer"]
        "How long the peer kept acknowledgements back, by its own word; a sample of them";
    "longhaul.link.queue.delay" Seconds "s" ["peer"]
        "How long bytes waited between the application's write and the packet that took them along; a sample of them";
    "longhaul.link.loss" Ratio "1" ["peer" "window"]
        "Share of the transports' packets that were lost, of each window when it ends; what TCP repaired is loss";
    "longhaul.link.outage.duration" OutageSeconds "s" ["peer" "survived"]
        "Outages that are over: no channel worked. Survived: streams went on afterwards";
    "longhaul.handshake.duration" Seconds "s" ["side" "transport" "outcome"]
        "From the dial, or the accepted connection, to the session or its failure";
    "longhaul.join.duration" Seconds "s" ["side" "transport" "outcome"]
        "From the dial, or the accepted connection, to the channel's join or its failure";
    "longhaul.stream.open.duration" Seconds "s" ["peer" "outcome"]
        "How long a connection of a forward waited for a session and a stream";
    "longhaul.forward.first_byte.duration" Seconds "s" ["peer" "service"]
        "From a connection at a forward to the first byte of the answer";
    "longhaul.event_loop.delay" Seconds "s" []
        "How late a timer of the node ran that was due each second";

    "longhaul.channel.io" Counter "By" ["peer" "channel" "transport" "direction"]
        "Bytes of packets, padding and seals included";
    "longhaul.channel.packet" Counter "{packet}" ["peer" "channel" "transport" "direction"]
        "Packets of the session";
    "longhaul.channel.fragment" Counter "{fragment}" ["peer" "channel" "transport" "direction"]
        "Pieces that streams were cut into";
    "longhaul.channel.padding" Counter "By" ["peer" "channel" "transport"]
        "Bytes of padding among those sent";
    "longhaul.channel.reinjected" Counter "By" ["peer" "channel" "transport"]
        "Stream bytes of the channel that went out again on another one";
    "longhaul.channel.transport.packet" Counter "{packet}" ["peer" "channel" "transport"]
        "Packets that the transport sent: segments with data of TCP, packets of QUIC";
    "longhaul.channel.transport.lost" Counter "{packet}" ["peer" "channel" "transport"]
        "Packets that the transport found lost; those of TCP are the ones that it sent again";
    "longhaul.channel.transport.retransmitted" Counter "By" ["peer" "channel" "transport"]
        "Bytes of the packets that were lost, which had to be sent again";
    "longhaul.channel.bandwidth" Gauge "By/s" ["peer" "channel" "transport" "window" "direction"]
        "Bytes a second of the window";
    "longhaul.channel.latency" Gauge "s" ["peer" "channel" "transport" "window"]
        "Mean round trip of the window; absent when none was measured in it";
    "longhaul.channel.loss" Gauge "1" ["peer" "channel" "transport" "window"]
        "Share of the transport's packets that were lost in the window; absent when none were sent";
    "longhaul.channel.congestion_window" Gauge "By" ["peer" "channel" "transport"]
        "What the transport lets be on its way";
    "longhaul.channel.delivery_rate" Gauge "By/s" ["peer" "channel" "transport"]
        "What the channel delivered of late, by the transport where it tells, by the session otherwise";
    "longhaul.channel.unsent" Gauge "By" ["peer" "channel" "transport"]
        "Bytes that the kernel holds for a TCP channel and has not sent";

    "longhaul.link.session" UpDownCounter "{session}" ["peer"]
        "Sessions that are connected";
    "longhaul.link.channel" UpDownCounter "{channel}" ["peer" "transport" "state"]
        "Channels that live, by state: joining, active, suspect";
    "longhaul.link.stream" UpDownCounter "{stream}" ["peer"]
        "Streams that are not over";
    "longhaul.link.unsent" Gauge "By" ["peer"]
        "Bytes that wait for channels or credit";
    "longhaul.link.held" Gauge "By" ["peer"]
        "Bytes that sessions hold for sending and for reading";
    "longhaul.link.outage" Gauge "s" ["peer"]
        "How long no channel has worked; 0 while one does";
    "longhaul.link.bandwidth" Gauge "By/s" ["peer" "window" "direction"]
        "Bytes a second of the window, all channels together";
    "longhaul.link.packet.current" Gauge "{packet}" ["peer" "window" "direction"]
        "Packets in the window, all channels together";
    "longhaul.link.fragment.current" Gauge "{fragment}" ["peer" "window" "direction"]
        "Pieces of streams in the window, all channels together";
    "longhaul.link.latency" Gauge "s" ["peer" "window"]
        "Mean round trip of the window, all channels together; absent when none was measured in it";
    "longhaul.link.loss.current" Gauge "1" ["peer" "window"]
        "Share of the transports' packets that were lost in the window; absent when none were sent";
    "longhaul.link.retransmitted.current" Gauge "By" ["peer" "window"]
        "Bytes that the transports sent again in the window";
    "longhaul.link.reinjected.current" Gauge "By" ["peer" "window"]
        "Stream bytes that went out again on another channel in the window";
    "longhaul.link.padding" Gauge "1" ["peer" "window"]
        "Share of padding in the bytes sent in the window";
    "longhaul.link.window.blocked" Counter "{event}" ["peer" "limit"]
        "Times that this side had to wait for credit of the peer: of the session, of a stream, of opening streams";
    "longhaul.link.throttled" Counter "s" ["peer" "limit"]
        "How long data waited for a bandwidth limit of this node: of the link, of the peer, or of the node, which peers share";
    "longhaul.link.scheduler.decision" Counter "{decision}" ["peer" "decision"]
        "Where there was a choice of channels: taken by the one that asked, passed-on to a better one, held-back; copied";
    "longhaul.link.channel.ended" Counter "{channel}" ["peer" "transport" "reason"]
        "Lanes that ended; a QUIC channel has several";
    "longhaul.link.session.ended" Counter "{session}" ["peer" "reason"]
        "Sessions that ended";
    "longhaul.link.datagram" Counter "{datagram}" ["peer" "direction"]
        "Datagrams of flows";
    "longhaul.link.datagram.dropped" Counter "{datagram}" ["peer" "reason"]
        "Datagrams of flows that were dropped";

    "longhaul.service.io" Counter "By" ["service" "direction"]
        "Bytes between peers and the target of a service; transmit is towards peers";
    "longhaul.service.connection" Counter "{connection}" ["service"]
        "Connections and flows that reached the target of a service";
    "longhaul.service.connection.open" UpDownCounter "{connection}" ["service"]
        "Connections and flows of a service that are open";
    "longhaul.service.throttled" Counter "s" ["service" "direction"]
        "How long connections waited for the bandwidth limit of a service, added up; transmit is towards peers";
    "longhaul.service.refused" Counter "{connection}" ["service" "reason"]
        "Connections to a service that were refused";
    "longhaul.backend.up" UpDownCounter "{target}" ["service" "target"]
        "1 while a target gets connections, 0 while its checks fail or it is left out; of services with several targets or checks";
    "longhaul.backend.check" Counter "{check}" ["service" "target" "outcome"]
        "Health checks of a target";
    "longhaul.backend.connection" Counter "{connection}" ["service" "target" "outcome"]
        "Connections and flows to a target, and those that could not be made; of services with several targets or checks";
    "longhaul.backend.connection.open" UpDownCounter "{connection}" ["service" "target"]
        "Connections and flows to a target that are open; of services with several targets or checks";
    "longhaul.backend.ejection" Counter "{ejection}" ["service" "target"]
        "Times that a target was left out because connections to it failed; of services with several targets or checks";
    "longhaul.service.request.refused" Counter "{connection}" ["reason"]
        "Streams of peers that led to no service";
    "longhaul.forward.io" Counter "By" ["peer" "service" "direction"]
        "Bytes between applications and a forward; transmit is towards the peer";
    "longhaul.forward.connection" Counter "{connection}" ["peer" "service"]
        "Connections and flows of a forward that got a stream";
    "longhaul.forward.connection.open" UpDownCounter "{connection}" ["peer" "service"]
        "Connections and flows of a forward that are open";
    "longhaul.forward.throttled" Counter "s" ["peer" "service" "direction"]
        "How long connections waited for the bandwidth limit of a forward, added up; transmit is towards the peer";
    "longhaul.forward.refused" Counter "{connection}" ["peer" "service" "reason"]
        "Connections to a forward that were refused";

    "longhaul.error" Counter "{error}" ["operation" "kind"]
        "Handshakes and joins that failed, by what went wrong";
    "longhaul.listener.refused" Counter "{connection}" ["reason"]
        "Connections of peers that listeners did not let in";
    "longhaul.listener.pending" UpDownCounter "{handshake}" []
        "Handshakes under way at listeners";
    "longhaul.certificate.expiry" Gauge "s" ["certificate"]
        "When the node's certificate ends, in seconds since 1970";
    "longhaul.authority.token" UpDownCounter "{token}" ["state"]
        "Tokens of a hub, by what they are worth: valid, used-up, expired, revoked";
    "longhaul.authority.node" UpDownCounter "{node}" ["state"]
        "Nodes of a hub, by their newest certificate: valid, expired, revoked";
    "longhaul.authority.certificate" UpDownCounter "{certificate}" []
        "Certificates that a hub has issued in all its life, renewed ones included";
    "longhaul.authority.denied" UpDownCounter "{entry}" []
        "Nodes, keys and tokens on a hub's denylist";
    "longhaul.authority.event" Counter "{event}" ["event"]
        "Machines and guests that a hub let in or refused: certificate-issued, certificate-renewed, enrolment-refused, renewal-refused, guest-admitted, guest-refused, token-locked";
    "longhaul.telemetry.export" Counter "{export}" ["signal" "outcome"]
        "Exports to the collector";
    "longhaul.telemetry.dropped" Counter "{sample}" []
        "Single measurements that found no room before they were read";
    "longhaul.telemetry.span.dropped" Counter "{span}" []
        "Spans that found no room before they were sent";
    "longhaul.telemetry.log.dropped" Counter "{log_record}" []
        "Log events that found no room before they were sent";
    "process.cpu.time" Counter "s" ["cpu.mode"]
        "CPU time of the process";
    "process.memory.usage" UpDownCounter "By" []
        "Resident memory of the process";
    "process.unix.file_descriptor.count" UpDownCounter "{file_descriptor}" []
        "Open file descriptors of the process";
    "process.thread.count" UpDownCounter "{thread}" []
        "Threads of the process";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        for (index, instrument) in INSTRUMENTS.iter().enumerate() {
            let name = instrument.name;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '_'), "{name}");
            assert!(!name.ends_with("_total") && !name.contains("seconds") && !name.contains("bytes"), "{name}");
            assert!(INSTRUMENTS[index + 1..].iter().all(|other| other.name != name), "{name} is there twice");
            assert!(!instrument.meaning.is_empty() && !instrument.meaning.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn no_attribute_names_a_client() {
        const BOUNDED: [&str; 17] = [
            "peer",
            "channel",
            "transport",
            "direction",
            "window",
            "side",
            "outcome",
            "service",
            "target",
            "reason",
            "state",
            "limit",
            "decision",
            "survived",
            "operation",
            "kind",
            "cpu.mode",
        ];
        for instrument in INSTRUMENTS {
            for attribute in instrument.attributes {
                let is_known = BOUNDED.contains(attribute) || ["certificate", "signal", "event"].contains(attribute);
                assert!(is_known, "{}: {attribute} is not known to be bounded", instrument.name);
            }
        }
    }
}
