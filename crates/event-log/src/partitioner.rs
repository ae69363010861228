//! The partition of a key: the default of Kafka's Java producer, which librdkafka calls `murmur2_random`. Both logs use it, so an
//! account keeps its partition when a deployment moves from the embedded log to Kafka, and other producers agree.

#![expect(unsafe_code, reason = "the binding has no safe call for librdkafka's partitioner")]

use std::ptr;

use rdkafka::bindings::rd_kafka_msg_partitioner_murmur2;

/// The partition of a record with this key, in a topic of `partition_count` partitions (at least one, at most 2^31 - 1).
pub fn partition_of_key(key: &[u8], partition_count: u32) -> u32 {
    let (start, nothing) = (key.as_ptr().cast(), ptr::null_mut());
    // SAFETY: The function reads `key.len()` bytes from `start` and uses no other pointer.
    let partition = unsafe {
        rd_kafka_msg_partitioner_murmur2(ptr::null(), start, key.len(), partition_count as i32, nothing, nothing)
    };
    partition as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most partitions: the partition is then the hash without its sign, which Java's producer clears.
    const ALL: u32 = i32::MAX as u32;

    /// librdkafka's own vectors (`rdmurmur2.c`, `unittest_murmur2`), made with Java's client.
    const KNOWN: [(&str, u32); 11] = [
        ("kafka", 0xd067_cf64),
        ("giberish123456789", 0x8f55_2b0c),
        ("1234", 0x9fc9_7b14),
        ("234", 0xe7c0_09ca),
        ("34", 0x8739_30da),
        ("4", 0x5a4b_5ca1),
        ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
        ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
        ("eAmbleWillBeRemoved,ThePrePartThatIs", 0xe0e4_e09e),
        ("AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8_b43f),
        ("", 0x106e_08d9),
    ];

    #[test]
    fn hashes_as_librdkafka_and_java_do() {
        for (key, hash) in KNOWN {
            assert_eq!(partition_of_key(key.as_bytes(), ALL), hash & ALL, "{key:?}");
        }
    }

    /// Apache Kafka's own vectors (`UtilsTest.testMurmur2`), which have bytes beyond ASCII and signed results.
    #[test]
    fn hashes_as_apache_kafkas_tests_say() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(partition_of_key(key, ALL), hash as u32 & ALL, "{key:?}");
        }
    }

    #[test]
    fn clears_the_sign_before_the_remainder() {
        assert_eq!(partition_of_key(b"kafka", 3), (0xd067_cf64 & 0x7fff_ffff) % 3);
        assert_eq!(partition_of_key(b"kafka", 1), 0);
    }
}
