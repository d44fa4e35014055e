//! Error codes of the protocol by name or number.
//!
//! The platform's enum is the only list of them: a code is made by decoding its number, with empty details, and named by
//! what it prints.

use fluvio_protocol::Decoder;
use fluvio_protocol::link::ErrorCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// More bytes than the details of any code need when all of them are empty.
const EMPTY_DETAILS: usize = 64;
/// Where all numbers lie.
const NUMBERS: std::ops::RangeInclusive<i16> = -1..=i16::MAX;

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the name or number of an error code")]
enum Written {
    Number(i16),
    Name(String),
}

pub(super) fn serialize<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name(code))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
    let written =
        Written::deserialize(deserializer).map_err(|error| D::Error::custom(format!("code: {error}")))?;
    let (found, shown) = match written {
        Written::Number(number) => (from_number(number), number.to_string()),
        Written::Name(wanted) => {
            (NUMBERS.filter_map(from_number).find(|code| name(code) == wanted), format!("{wanted:?}"))
        }
    };
    let is_error = |code: &ErrorCode| code.is_error();
    found.filter(is_error).ok_or_else(|| {
        D::Error::custom(format!(
            "code: {shown} is no error of the protocol: give one such as \"StorageError\" or 56"
        ))
    })
}

fn from_number(number: i16) -> Option<ErrorCode> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(bytes.len() + EMPTY_DETAILS, 0);
    ErrorCode::decode_from(&mut &bytes[..], 25).ok()
}

fn name(code: &ErrorCode) -> String {
    let printed = format!("{code:?}");
    printed.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use fluvio_protocol::Encoder;

    use super::*;

    #[test]
    fn every_code_of_the_protocol_is_found_by_name_and_number() {
        let codes: Vec<_> = NUMBERS.filter_map(from_number).collect();
        assert!(codes.len() > 60, "{}", codes.len());
        for wanted in [6, 7, 56, 71, 72, 2001, 6004, 10000] {
            assert!(from_number(wanted).is_some(), "{wanted}");
        }
        assert!(codes.iter().all(|code| code.encode(&mut Vec::new(), 25).is_ok()));
        let mut names: Vec<_> = codes.iter().map(name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), codes.len());
    }
}
