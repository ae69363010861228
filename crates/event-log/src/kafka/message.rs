//! Messages as librdkafka holds them: taken many at once, and their headers left alone until one is asked for.
//!
//! The binding does neither: it hands out one message a call, each in an event of its own and with looks at the clock, and
//! takes a message's headers for there only once librdkafka has made a list of them. Measured, processor time of the thread that
//! reads a million records and decodes them: 0.21 s as they are taken here, and 0.37 s with a poll for each.
//!
//! This is the only module that calls librdkafka past its binding. What it hands out is borrowed from messages that are freed when
//! whoever was handed it has returned, on every path, so nothing unsafe is left to its callers.

#![expect(unsafe_code, reason = "the binding has no safe call that takes many messages or leaves headers alone")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::bindings as librdkafka;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{IsError, KafkaError};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};

use crate::RecordRef;
use crate::record::Headers;

/// A message, or an error in the place of one, which is ours to free.
#[repr(transparent)]
struct Taken(NonNull<RDKafkaMessage>);

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: librdkafka has handed it over, nobody frees it but this, and nothing borrowed from it is left.
        unsafe { librdkafka::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// An error that librdkafka hands out in the place of a message.
pub(super) struct ReadError {
    pub(super) error: KafkaError,
    /// The partition that it is about, if it is about one.
    pub(super) partition: Option<u32>,
    /// Where in the partition, if it says so.
    pub(super) offset: Option<u64>,
    /// What librdkafka has to say, which may be nothing.
    pub(super) text: String,
}

/// Hands what has come to `take`, up to `limit` messages or until it fails. Waits up to `wait` until there are so many.
///
/// It is for a consumer whose partitions are assigned by hand: librdkafka settles by itself what else it meets in its queue, which
/// without a group is no more than an error of a connection, and logs it.
pub(super) fn take<E>(
    consumer: &BaseConsumer<impl ConsumerContext>,
    wait: Duration,
    limit: usize,
    mut take: impl FnMut(Result<RecordRef<'_>, Box<ReadError>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut messages: Vec<Taken> = Vec::with_capacity(limit);
    let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: The client lives as long as `consumer`, and the queue until it is given back. librdkafka writes as many pointers as
    // it says, `limit` at most, for which there is room. None is null, and each is a message that is ours then.
    unsafe {
        let queue = librdkafka::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if !queue.is_null() {
            let messages_there = messages.as_mut_ptr().cast();
            let count = librdkafka::rd_kafka_consume_batch_queue(queue, milliseconds, messages_there, limit);
            librdkafka::rd_kafka_queue_destroy(queue);
            // Negative if it failed, when there are none.
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
    }
    // Each is freed when it was taken, and those that are left when this ends early.
    messages.into_iter().try_for_each(|message| take(message.as_record()))
}

impl Taken {
    fn as_record(&self) -> Result<RecordRef<'_>, Box<ReadError>> {
        // SAFETY: librdkafka does not write to these fields any more.
        let message = unsafe { self.0.as_ref() };
        // SAFETY: both point to so many bytes, which live as long as the message.
        let (key, value) = unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
        if message.err.is_error() {
            let error = match message.err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL => KafkaError::MessageConsumptionFatal(message.err.into()),
                error => KafkaError::MessageConsumption(error.into()),
            };
            return Err(Box::new(ReadError {
                error,
                partition: u32::try_from(message.partition).ok().filter(|_| !message.rkt.is_null()),
                offset: u64::try_from(message.offset).ok(),
                text: String::from_utf8_lossy(value.unwrap_or_default()).into_owned(),
            }));
        }
        let headers = Headers::Kafka(KafkaHeaders { message: self.0, borrowed: PhantomData });
        Ok(RecordRef { partition: message.partition as u32, offset: message.offset as u64, key, value, headers })
    }
}

impl<'a> From<&'a BorrowedMessage<'_>> for RecordRef<'a> {
    fn from(message: &'a BorrowedMessage<'_>) -> Self {
        let headers = |message| Headers::Kafka(KafkaHeaders { message, borrowed: PhantomData });
        RecordRef {
            partition: message.partition() as u32,
            offset: message.offset() as u64,
            key: message.key(),
            value: message.payload(),
            headers: NonNull::new(message.ptr()).map_or(Headers::Empty, headers),
        }
    }
}

/// The headers of a message, of which librdkafka makes a list when they are looked at.
#[derive(Clone, Copy)]
pub struct KafkaHeaders<'a> {
    /// It lives for `'a`.
    message: NonNull<RDKafkaMessage>,
    borrowed: PhantomData<&'a RDKafkaMessage>,
}

impl<'a> KafkaHeaders<'a> {
    /// All of them in order. A null value reads as an empty one. Any producer can write a name that is not UTF-8; such a header
    /// counts as absent.
    pub(crate) fn iter(self) -> impl DoubleEndedIterator<Item = (&'a str, &'a [u8])> {
        let mut list = ptr::null_mut();
        // SAFETY: The message lives, and keeps the list for as long. Of none, or of bytes that are no headers, there is no list.
        let count = unsafe {
            match librdkafka::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => librdkafka::rd_kafka_header_cnt(list),
                _ => 0,
            }
        };
        (0..count).filter_map(move |index| {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: The list is the message's. Name and value live as long as it, and the name ends with a NUL.
            unsafe {
                let found =
                    librdkafka::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut length);
                let name = if found.is_error() { None } else { CStr::from_ptr(name).to_str().ok() };
                name.map(|name| (name, bytes(value, length).unwrap_or_default()))
            }
        })
    }
}

/// `None` if `start` is null.
///
/// # Safety
/// Otherwise there are `length` bytes, which do not change and live for `'a`.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller sees to it.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), length) })
}
