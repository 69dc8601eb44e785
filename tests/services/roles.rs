//! Roles: what a certificate says of a node decides which services it may use, over each of its channels.

use std::sync::Arc;

use longhaul::channel::{Address, ListenOptions};
use longhaul::node::{Link, LinkAddress, LinkConfig, Node};
use longhaul::service::{Allow, Forward, ForwardConfig, Gateway, Refusal, ServiceConfig, Services, Who};

use crate::common::{client, connect, echo, exchange, id, next_is_reset, settings, settings_with, soon, tcp, until};

fn role(trust_domain: &str, role: &str) -> Who {
    Who::Role { trust_domain: trust_domain.to_owned(), role: role.parse().unwrap() }
}

/// A node with these roles, linked to `hub` over `channels` of each address.
async fn dial(roles: &[&str], addresses: &[Address], channels: u32) -> (Gateway, Link) {
    let node = Node::builder(settings_with("a", roles)).build().await.unwrap();
    let mut config = LinkConfig::new(id("hub"), []);
    config.addresses =
        addresses.iter().map(|address| LinkAddress { count: channels, ..address.clone().into() }).collect();
    let link = node.link(config);
    let gateway = Gateway::start(node, Services::new([]));
    gateway.add_link(link.clone());
    (gateway, link)
}

async fn forward(gateway: &Gateway, service: &str) -> Arc<Forward> {
    gateway.forward(ForwardConfig::new(tcp(0), id("hub"), service)).await.unwrap()
}

async fn hub(services: Vec<ServiceConfig>) -> (Gateway, Vec<Address>) {
    let mut builder = Node::builder(settings("hub"));
    for scheme in ["tcp", "tls", "quic"] {
        let address = format!("{scheme}://127.0.0.1:0").parse().unwrap();
        builder = builder.listen(address, ListenOptions::default());
    }
    let node = builder.build().await.unwrap();
    let addresses = node.local_addresses().to_vec();
    (Gateway::start(node, Services::new(services)), addresses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_opens_the_services_that_name_it_and_no_others() {
    let target = echo().await;
    let (hub, addresses) = hub(vec![
        ServiceConfig::new("edge", target.clone(), Allow::OneOf(vec![role("test", "edge")])),
        ServiceConfig::new("foreign", target.clone(), Allow::OneOf(vec![role("elsewhere", "edge")])),
        ServiceConfig::new("either", target, Allow::OneOf(vec![Who::Node(id("b")), role("test", "backup")])),
    ])
    .await;
    for address in &addresses {
        let (with, _) = dial(&["backup", "edge"], std::slice::from_ref(address), 1).await;
        for (service, is_allowed) in [("edge", true), ("either", true), ("foreign", false)] {
            let forward = forward(&with, service).await;
            if is_allowed {
                assert_eq!(soon(exchange(client(&forward).await, b"hello")).await.unwrap(), b"hello", "{service}");
            } else {
                assert!(next_is_reset(&forward).await, "{service}");
                until(|| forward.counters().refused(Refusal::NotAllowed) == 1).await;
            }
        }
        let (without, _) = dial(&["edges", "Edge"], std::slice::from_ref(address), 1).await;
        for service in ["edge", "either"] {
            let forward = forward(&without, service).await;
            assert!(next_is_reset(&forward).await, "{service}");
            until(|| forward.counters().refused(Refusal::NotAllowed) == 1).await;
        }
    }
    assert!(hub.services().get("edge").unwrap().counters().refused(Refusal::NotAllowed) > 0);
}

/// A policy that is asked on the first channel alone would be none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_joined_channels_are_judged_as_those_over_the_first() {
    let services = vec![ServiceConfig::new("edge", echo().await, Allow::OneOf(vec![role("test", "edge")]))];
    let (_hub, addresses) = hub(services).await;
    let (gateway, link) = dial(&["other"], &addresses, 2).await;
    let session = soon(link.session()).await.unwrap();
    until(|| session.stats().lanes.len() >= 4).await;
    let forward = forward(&gateway, "edge").await;
    for count in 1..=20 {
        // One that is reset before it is connected is refused as well.
        if let Ok(stream) = connect(&forward).await {
            assert!(soon(exchange(stream, b"hello")).await.is_err());
        }
        until(|| forward.counters().refused(Refusal::NotAllowed) == count).await;
    }
}
