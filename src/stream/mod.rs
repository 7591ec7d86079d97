//! Framings: how a body is cut into frames. Each is a resumable push machine that takes chunks of any size, keeps a
//! bounded number of bytes and copies none on the common path.

pub mod array;
pub mod decode;
pub mod event_stream;
pub mod sse;
pub mod websocket;
