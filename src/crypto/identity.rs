//! Node identities: who a certificate says that a peer is, and which peers are trusted.
