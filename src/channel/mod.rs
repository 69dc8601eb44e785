//! Channels: bytes in, bytes out, over TCP, TLS and Unix sockets.
