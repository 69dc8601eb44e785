//! `/config`: what the configuration came to, defaults included, without secrets. Certificates, keys and tokens are
//! named by their files; their contents are not here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::status::VERSION;
use crate::channel::{NotsentLowat, QuicOptions, TcpOptions, UnixOptions};
use crate::config::{Config, LinkConfig, ListenConfig, Seal};
use crate::node::{Bandwidth, LaneRole};
use crate::service::{
    Allow, BalanceOptions, CheckKind, CheckOptions, DatagramOptions, ForwardConfig, ServiceConfig, TargetConfig, Who,
};
use crate::telemetry::{Histograms, Protocol, Settings};

/// The configuration in force.
pub(super) fn config(config: &Config) -> Value {
    let files = &config.identity.files;
    json!({
        "version": VERSION,
        "path": config.path,
        "node": {
            "id": config.node.id.to_string(),
            "shutdown_timeout_ms": milliseconds(config.node.shutdown_timeout),
            "survive_ms": milliseconds(config.node.survive),
            "max_session_age_ms": milliseconds(config.node.session_age_max),
            "memory_max_bytes": config.node.memory_bytes_max,
        },
        "limits": {
            "bandwidth_limit": config.limits.bandwidth.map(bandwidth),
            "peer_bandwidth_limit": config.limits.peer_bandwidth.map(bandwidth),
            "peer_bandwidth_limits": config
                .limits
                .peer_bandwidths
                .iter()
                .map(|(peer, limit)| (peer.to_string(), bandwidth(*limit)))
                .collect::<BTreeMap<_, _>>(),
            "connections_per_peer_max": count(config.limits.connections_per_peer_max),
        },
        "log": { "filter": config.log_filter },
        "admin": config.admin.as_ref().map(|admin| json!({
            "listen": texts(&admin.listen),
            "token_file": admin.token_file,
            "mode": format!("{:04o}", admin.unix.mode),
            "uid": admin.unix.uid,
            "gid": admin.unix.gid,
        })),
        "identity": {
            "certificate": files.certificate,
            "key": files.key,
            "trust_anchors": files.trust_anchors,
            "guest": config.identity.guest.is_some(),
        },
        "enroll": config.enroll.as_ref().map(|enroll| json!({
            "listen": enroll.listen.as_ref().map(ToString::to_string),
            "directory": enroll.directory,
            "passphrase_file": enroll.passphrase_file,
            "certificate_lifetime_ms": milliseconds(enroll.certificate_lifetime),
            "advertise": texts(&enroll.addresses),
        })),
        "renew": config.renew.as_ref().map(|renew| json!({
            "hub": renew.hub.to_string(),
            "host": renew.host,
            "port": renew.port,
        })),
        "telemetry": telemetry(&config.telemetry),
        "listen": config.listeners.iter().map(listener).collect::<Vec<_>>(),
        "link": config.links.iter().map(link).collect::<Vec<_>>(),
        "service": config.services.iter().map(service).collect::<Vec<_>>(),
        "forward": config.forwards.iter().map(forward).collect::<Vec<_>>(),
        "warnings": config.warnings,
    })
}

/// Headers carry passwords: only how many there are is told.
fn telemetry(settings: &Settings) -> Value {
    json!({
        "resource": settings.resource,
        "histograms": match &settings.histograms {
            Histograms::Explicit(_) => "explicit",
            Histograms::Exponential => "exponential",
        },
        "latency_boundaries_s": match &settings.histograms {
            Histograms::Explicit(boundaries) => boundaries.clone(),
            Histograms::Exponential => None,
        },
        "trace_ratio": settings.trace_ratio,
        "otlp": settings.otlp.as_ref().map(|otlp| json!({
            "endpoint": otlp.endpoint,
            "protocol": otlp.protocol.map(|protocol| match protocol {
                Protocol::Grpc => "grpc",
                Protocol::HttpProtobuf => "http/protobuf",
            }),
            "header_count": otlp.headers.len(),
            "interval_ms": otlp.interval.map(milliseconds),
            "timeout_ms": otlp.timeout.map(milliseconds),
        })),
    })
}

fn listener(ListenConfig { address, options }: &ListenConfig) -> Value {
    json!({
        "address": address.to_string(),
        "handshakes_max": options.admission.pending_max,
        "handshakes_per_ip_max": options.admission.pending_per_source_max,
        "rate_per_ip": options.admission.rate_per_source.map(|rate| rate.per_second),
        "tcp": tcp(&options.tcp),
        "quic": quic(&options.quic),
        "unix": unix(&options.unix),
        "early_data": options.early_data,
        "guests": options.takes_guests,
        "enrolls": options.enrolls,
    })
}

fn link(link: &LinkConfig) -> Value {
    let addresses = link.addresses.iter().map(|address| {
        json!({
            "url": address.address.to_string(),
            "count": address.count,
            "weight": address.weight,
            "priority": address.priority,
            "role": match address.role {
                LaneRole::Active => "active",
                LaneRole::Standby => "standby",
            },
        })
    });
    json!({
        "peer": link.peer.to_string(),
        "required": link.required,
        "addresses": addresses.collect::<Vec<_>>(),
        "prefer": link.prefer.map(|kind| kind.to_string()),
        "entrances": format!("{:?}", link.entrances).to_lowercase(),
        "scheduler": link.scheduler.to_string(),
        "padding": link.padding.to_string(),
        "survive_ms": milliseconds(link.survive),
        "seal": match link.seal {
            Seal::Auto => "auto",
            Seal::Always => "always",
        },
        "early_data": link.early_data,
        "bandwidth_limit": link.bandwidth_limit.map(bandwidth),
        "connect_timeout_ms": milliseconds(link.dial.timeout),
        "bind": link.dial.tcp.bind,
        "tcp": tcp(&link.dial.tcp),
        "quic": quic(&link.dial.quic),
    })
}

fn service(service: &ServiceConfig) -> Value {
    json!({
        "name": service.name,
        "target": service.targets.to_string(),
        "targets": service.targets.all().iter().map(target).collect::<Vec<_>>(),
        "balance": balance(&service.balance),
        "check": service.check.as_ref().map(check),
        "required": service.required,
        "allow": allow(&service.allow),
        "proxy_protocol": service.proxy_protocol.map(|version| format!("{version:?}").to_lowercase()),
        "connections_max": service.connections_max,
        "connections_per_peer_max": count(service.connections_per_peer_max),
        "bandwidth_limit": service.bandwidth_limit.map(bandwidth),
        "connect_timeout_ms": milliseconds(service.connect_timeout),
        "priority": format!("{:?}", service.priority).to_lowercase(),
        "replay_safe": service.replay_safe,
        "datagrams": datagrams(&service.datagrams),
    })
}

fn target(config: &TargetConfig) -> Value {
    json!({
        "url": config.target.to_string(),
        "weight": config.weight,
        "check_url": config.check.as_ref().map(ToString::to_string),
    })
}

fn balance(options: &BalanceOptions) -> Value {
    json!({
        "strategy": options.strategy.as_str(),
        "connect_attempts": options.attempts_max,
        "eject_after": options.ejection.map_or(0, |ejection| ejection.failures),
        "eject_time_ms": options.ejection.map(|ejection| milliseconds(ejection.time)),
        "eject_time_max_ms": options.ejection.map(|ejection| milliseconds(ejection.time_max)),
        "slow_start_ms": options.slow_start.map(milliseconds),
    })
}

fn check(options: &CheckOptions) -> Value {
    let (path, host, status) = match &options.kind {
        CheckKind::Http { path, host, status } => (Some(path), host.as_ref(), Some(status.to_string())),
        CheckKind::Connect | CheckKind::Redis => (None, None, None),
    };
    json!({
        "type": options.kind.as_str(),
        "interval_ms": milliseconds(options.interval),
        "timeout_ms": milliseconds(options.timeout),
        "rise": options.rise,
        "fall": options.fall,
        "path": path,
        "host": host,
        "status": status,
    })
}

fn forward(forward: &ForwardConfig) -> Value {
    json!({
        "listen": forward.listen.to_string(),
        "peer": forward.peer.to_string(),
        "service": forward.service,
        "proxy_protocol": if forward.accepts_proxy_protocol { "accept" } else { "none" },
        "connections_max": forward.connections_max,
        "bandwidth_limit": forward.bandwidth_limit.map(bandwidth),
        "session_timeout_ms": milliseconds(forward.session_timeout),
        "priority": format!("{:?}", forward.priority).to_lowercase(),
        "replay_safe": forward.replay_safe,
        "datagrams": datagrams(&forward.datagrams),
        "unix": unix(&forward.unix),
    })
}

/// In one unit, whatever it was written in.
fn bandwidth(limit: Bandwidth) -> Value {
    json!({ "bytes_per_second": limit.bytes_per_second(), "text": limit.to_string() })
}

/// What is not limited is absent.
fn count(max: u32) -> Option<u32> {
    (max < u32::MAX).then_some(max)
}

/// As it is written in a file.
fn allow(allow: &Allow) -> Value {
    match allow {
        Allow::TrustDomain(domain) => json!({ "trust_domain": domain }),
        Allow::Everyone => json!(["*"]),
        Allow::OneOf(list) => json!(list.iter().map(who).collect::<Vec<_>>()),
    }
}

fn who(who: &Who) -> String {
    match who {
        Who::Node(node) => node.to_string(),
        Who::Role { role, .. } => format!("role:{role}"),
        Who::AnyNode => "*".to_owned(),
        Who::Guest => "guest".to_owned(),
    }
}

fn datagrams(options: &DatagramOptions) -> Value {
    json!({
        "idle_timeout_ms": milliseconds(options.idle_timeout),
        "flow_count_max": options.flow_count_max,
        "datagram_age_max_ms": milliseconds(options.age_max),
    })
}

fn tcp(options: &TcpOptions) -> Value {
    json!({
        "congestion": format!("{:?}", options.congestion).to_lowercase(),
        "keepalive_ms": options.keepalive.map(|keepalive| milliseconds(keepalive.idle)),
        "user_timeout_ms": options.user_timeout.map(milliseconds),
        "notsent_lowat": notsent_lowat(options.notsent_lowat),
        "mark": options.mark,
        "backlog": options.backlog,
    })
}

fn notsent_lowat(lowat: NotsentLowat) -> Value {
    match lowat {
        NotsentLowat::Auto => "auto".into(),
        NotsentLowat::Bytes(bytes) => bytes.into(),
        NotsentLowat::Off => "off".into(),
    }
}

fn quic(options: &QuicOptions) -> Value {
    json!({
        "congestion": format!("{:?}", options.congestion).to_lowercase(),
        "initial_window_bytes": options.initial_window_bytes,
        "initial_rtt_ms": milliseconds(options.initial_rtt),
        "mtu_initial": options.mtu_initial_bytes,
        "mtu_max": options.mtu_max_bytes,
        "keepalive_ms": options.keepalive.map(milliseconds),
        "idle_timeout_ms": milliseconds(options.idle_timeout),
        "lanes": options.lane_count,
        "send_buffer_bytes": options.send_buffer_bytes,
        "receive_buffer_bytes": options.receive_buffer_bytes,
        "gso": options.segmentation_offload,
        "endpoints": options.endpoint_count,
        "retry": format!("{:?}", options.retry).to_lowercase(),
    })
}

fn unix(options: &UnixOptions) -> Value {
    json!({
        "mode": format!("{:04o}", options.mode),
        "uid": options.uid,
        "gid": options.gid,
        "allow_uids": options.allow_uids,
        "allow_gids": options.allow_gids,
    })
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
