//! Responses of any length: JSON values, one a line, sent while they are produced, with bounded memory.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::scans::ScanPermit;

/// The size at which lines are sent: large enough that the cost of sending does not count.
const BLOCK_BYTES: usize = 64 * 1024;

/// The blocks that may wait for a caller that reads slowly. The producer waits when there are more.
const WAITING_BLOCKS: usize = 4;

/// The producer's end of a response of lines. The response ends when it is dropped; a last line of another form tells the caller that
/// the response is complete.
pub struct LineSender {
    blocks: Sender<Bytes>,
    block: Vec<u8>,
    /// Given back before the last line, so that the caller's next request finds a place.
    permit: ScanPermit,
}

/// A response of lines (`application/x-ndjson`) of a permitted scan, and where to put them.
pub fn lines(permit: ScanPermit) -> (LineSender, Response) {
    let (blocks, receiver) = channel(WAITING_BLOCKS);
    let response = ([(CONTENT_TYPE, "application/x-ndjson")], body_of(receiver)).into_response();
    (LineSender { blocks, block: Vec::new(), permit }, response)
}

/// A body of the blocks that `receiver` receives, until its senders are dropped.
pub fn body_of(receiver: Receiver<Bytes>) -> Body {
    let next = async |mut receiver: Receiver<Bytes>| Some((Ok::<_, Infallible>(receiver.recv().await?), receiver));
    Body::from_stream(stream::unfold(receiver, next))
}

impl LineSender {
    /// Adds a line. Call [`send`](LineSender::send) or [`blocking_send`](LineSender::blocking_send) between lines.
    pub fn push(&mut self, line: &impl Serialize) {
        // Writing to memory does not fail, and the lines are numbers and texts.
        let _ = serde_json::to_writer(&mut self.block, line);
        self.block.push(b'\n');
    }

    /// Sends the lines if they are many. Returns whether the caller is still there.
    pub async fn send(&mut self) -> bool {
        self.block.len() < BLOCK_BYTES || self.blocks.send(std::mem::take(&mut self.block).into()).await.is_ok()
    }

    /// As [`send`](LineSender::send), for a thread that may block.
    pub fn blocking_send(&mut self) -> bool {
        self.block.len() < BLOCK_BYTES || self.blocks.blocking_send(std::mem::take(&mut self.block).into()).is_ok()
    }

    /// Adds the last line and sends the rest.
    pub async fn finish(mut self, last: &impl Serialize) {
        self.push(last);
        drop(self.permit);
        // A caller that is gone needs no end.
        let _ = self.blocks.send(self.block.into()).await;
    }

    /// As [`finish`](LineSender::finish), for a thread that may block.
    pub fn blocking_finish(mut self, last: &impl Serialize) {
        self.push(last);
        drop(self.permit);
        let _ = self.blocks.blocking_send(self.block.into());
    }
}
