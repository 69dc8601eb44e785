//! The proof that binds a further channel to a session: an HMAC under an exporter-derived key over both nonces.

use ring::hmac;

use crate::base::{LaneId, Secret, SessionId};
use crate::wire::{LaneRole, LaneUsage};

const CLIENT_LABEL: &[u8] = b"longhaul join c";
const SERVER_LABEL: &[u8] = b"longhaul join s";

/// What a join says, as both proofs cover it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTranscript {
    /// Version of the protocol.
    pub version: u32,
    /// The session to be joined.
    pub session_id: SessionId,
    /// The first of the lanes that the channel asks for.
    pub lane_id: LaneId,
    /// How many consecutive lanes it asks for.
    pub lane_count: u32,
    /// How they are used.
    pub usage: LaneUsage,
    /// The kind of channel, as on the wire.
    pub kind: u32,
    /// The client's nonce.
    pub nonce: [u8; 16],
    /// The exporter of the channel's own TLS (RFC 9266), empty on raw channels.
    pub channel_binding: Vec<u8>,
}

impl JoinTranscript {
    /// The client's proof.
    #[must_use]
    pub fn client_mac(&self, join_key: &Secret<32>) -> [u8; 32] {
        self.sign(join_key, CLIENT_LABEL, &[])
    }

    /// The server's proof, over the client's message and its own nonce.
    #[must_use]
    pub fn server_mac(&self, join_key: &Secret<32>, server_nonce: &[u8; 16]) -> [u8; 32] {
        self.sign(join_key, SERVER_LABEL, server_nonce)
    }

    fn sign(&self, join_key: &Secret<32>, label: &[u8], server_nonce: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, join_key.expose()));
        context.update(label);
        context.update(&self.version.to_be_bytes());
        context.update(&self.session_id.0);
        context.update(&self.lane_id.0.to_be_bytes());
        context.update(&self.lane_count.to_be_bytes());
        context.update(&self.usage.weight.to_be_bytes());
        context.update(&self.kind.to_be_bytes());
        context.update(&self.nonce);
        // The only part of variable length goes in with its length, so that no two transcripts read the same.
        context.update(&(self.channel_binding.len() as u64).to_be_bytes());
        context.update(&self.channel_binding);
        // Left out where it says nothing, so that a plain join is proven as it was before these fields were there. The
        // label tells a client's end from a server's, and so 8 bytes here from those of a nonce.
        let (priority, role) = (self.usage.priority, self.usage.role);
        if (priority, role) != (0, LaneRole::Active) {
            context.update(&priority.to_be_bytes());
            context.update(&(role as u32).to_be_bytes());
        }
        context.update(server_nonce);
        context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> JoinTranscript {
        JoinTranscript {
            version: 1,
            session_id: SessionId([3; 16]),
            lane_id: LaneId(5),
            lane_count: 1,
            usage: LaneUsage::default(),
            kind: 0,
            nonce: [9; 16],
            channel_binding: vec![1, 2, 3],
        }
    }

    #[test]
    fn every_field_changes_the_proof() {
        let key = Secret::new([1; 32]);
        let base = transcript();
        let mut others = vec![base.clone(); 10];
        others[0].version = 2;
        others[1].session_id = SessionId([4; 16]);
        others[2].lane_id = LaneId(6);
        others[3].lane_count = 2;
        others[4].kind = 1;
        others[5].nonce[0] ^= 1;
        others[6].channel_binding.clear();
        others[7].usage.weight = 2;
        others[8].usage.priority = 1;
        others[9].usage.role = LaneRole::Standby;
        for other in others {
            assert_ne!(other.client_mac(&key), base.client_mac(&key), "{other:?}");
        }
        assert_ne!(base.client_mac(&Secret::new([2; 32])), base.client_mac(&key));
    }

    #[test]
    fn the_two_directions_have_different_proofs() {
        let key = Secret::new([1; 32]);
        assert_ne!(transcript().client_mac(&key), transcript().server_mac(&key, &[0; 16]));
        assert_ne!(transcript().server_mac(&key, &[1; 16]), transcript().server_mac(&key, &[0; 16]));
    }
}
