//! Records: owned as they are published, borrowed as they are read.

use std::fmt;

use crate::kafka::KafkaHeaders;

/// Named values beside a record's key and value, owned. Names may repeat; the last one counts.
///
/// They stand in one piece of memory, for each one the name's length and the value's length (32 bits, little endian), then
/// the name and the value. So a record costs no allocation a header, and this is also how the embedded log stores them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<u8>);

impl HeaderList {
    /// None yet, with room for about so many bytes of names and values.
    pub fn with_capacity(bytes: usize) -> Self {
        HeaderList(Vec::with_capacity(bytes))
    }

    /// Adds one behind the others: its name, such as `ce_id`, and its bytes, by custom UTF-8 text.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.push_bytes(name.as_bytes(), value);
    }

    fn push_bytes(&mut self, name: &[u8], value: &[u8]) {
        self.0.extend_from_slice(&(name.len() as u32).to_le_bytes());
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
    }

    /// Takes all of them away, and keeps the memory for others.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of the last one called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.as_headers().get(name)
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // A name that came from elsewhere and is not UTF-8 has none that a record could be written with.
        EncodedHeaders(&self.0).map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a reader is handed them.
    pub fn as_headers(&self) -> Headers<'_> {
        Headers::Encoded(&self.0)
    }

    pub(crate) fn as_encoded(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |(name, value)| (name, String::from_utf8_lossy(value));
        f.debug_map().entries(self.iter().map(text)).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderList {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut list = HeaderList::default();
        for (name, value) in headers {
            list.push(name.as_ref(), value.as_ref());
        }
        list
    }
}

/// A record to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition; compaction keeps the last record of each key. Without one the log picks a partition.
    pub key: Option<Vec<u8>>,
    /// The record's bytes. `None` is Kafka's tombstone.
    pub value: Option<Vec<u8>>,
    /// In the order they are written.
    pub headers: HeaderList,
    /// Whether whoever publishes it knows that no earlier record has its key. The embedded log then need not look for what it
    /// replaces; where it is wrongly set, an older record only takes disk space. It is `false` of every record that was read.
    pub is_first_of_key: bool,
}

impl Record {
    /// How long key, value and headers are together.
    pub(crate) fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.as_encoded().len()
    }
}

/// A record as a reader is handed it, borrowed from the log's own buffers.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The partition it stands in.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, in whatever form the log holds them.
#[derive(Clone, Copy)]
pub enum Headers<'a> {
    /// None at all.
    Empty,
    /// As published, and as the embedded log stores them.
    Encoded(&'a [u8]),
    /// As librdkafka holds them.
    Kafka(KafkaHeaders<'a>),
}

impl<'a> Headers<'a> {
    /// The value of the last header called `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Headers::Empty => None,
            Headers::Encoded(bytes) => {
                EncodedHeaders(bytes).filter(|(other, _)| *other == name.as_bytes()).last().map(|(_, value)| value)
            }
            Headers::Kafka(headers) => headers.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| value),
        }
    }

    /// As the embedded log keeps them, if it is its record.
    pub(crate) fn as_encoded(self) -> &'a [u8] {
        match self {
            Headers::Encoded(bytes) => bytes,
            Headers::Empty | Headers::Kafka(_) => &[],
        }
    }

    /// All of them, owned.
    pub fn to_list(self) -> HeaderList {
        match self {
            Headers::Empty => HeaderList::default(),
            Headers::Encoded(bytes) => {
                let mut list = HeaderList::with_capacity(bytes.len());
                EncodedHeaders(bytes).for_each(|(name, value)| list.push_bytes(name, value));
                list
            }
            Headers::Kafka(headers) => headers.iter().collect(),
        }
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_list().fmt(f)
    }
}

impl RecordRef<'_> {
    /// The record, owned.
    pub fn to_record(self) -> Record {
        Record {
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers.to_list(),
            is_first_of_key: false,
        }
    }
}

/// Walks over encoded headers. It ends at the first one that is cut short: records are checked before they are handed
/// out, so this is never seen, and it is not worth a panic.
struct EncodedHeaders<'a>(&'a [u8]);

impl<'a> Iterator for EncodedHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_length, rest) = self.0.split_first_chunk::<4>()?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_length) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_length) as usize)?;
        self.0 = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_as_they_were_written_and_the_last_of_a_name_counts() {
        let written: [(&str, &[u8]); 4] = [("a", b"1"), ("b", b""), ("a", &[0, 255, 7]), ("", b"no name")];
        let list: HeaderList = written.into_iter().collect();
        assert!(list.iter().eq(written));
        assert_eq!(list.as_headers().to_list(), list);
        assert_eq!(
            ["a", "b", "", "c"].map(|name| list.get(name)),
            [Some(&[0, 255, 7][..]), Some(&b""[..]), Some(&b"no name"[..]), None]
        );
    }

    #[test]
    fn encoded_headers_cut_anywhere_do_not_panic() {
        let list: HeaderList = [("name", "value"), ("other", "more")].into_iter().collect();
        let bytes = list.as_encoded();
        for length in 0..bytes.len() {
            assert!(HeaderList(bytes[..length].to_vec()).iter().count() < 2);
        }
    }
}
