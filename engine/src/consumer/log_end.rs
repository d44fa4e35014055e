//! Where logs end, what is not yet replicated included. No request tells that: the offsets that a server gives end at the
//! high watermark. So the end is searched for with headers of batches: in front of it there is one, at it there is none,
//! and behind it the server refuses. Where everything is replicated one question finds it.

use std::collections::BTreeMap;

use fluvio_protocol::link::ErrorCode;
use wire::batch::{BatchHeader, HEADER_LEN};

use super::requests;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Connection;
use crate::producer::Isolation;

/// The search for the end of one log.
#[derive(Debug)]
struct Search {
    /// The end is not in front of this.
    low: i64,
    /// It is in front of this, once that is known.
    high: Option<i64>,
    /// How far behind `low` the next question goes while `high` is not known.
    reach: i64,
    end: Option<i64>,
}

/// What is at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A batch that ends in front of this offset.
    Batch {
        next: i64,
    },
    Nothing,
    /// The log ends before it.
    Refused,
}

impl Search {
    /// From an offset on that the log reaches.
    fn new(low: i64) -> Self {
        Search { low, high: None, reach: 0, end: None }
    }

    /// The offset to ask about; `None` once the end is known.
    fn question(&self) -> Option<i64> {
        match (self.end, self.high) {
            (Some(_), _) => None,
            (None, None) => Some(self.low.saturating_add(self.reach)),
            (None, Some(high)) => Some(self.low + (high - self.low) / 2),
        }
    }

    /// What is at the offset that was asked about. Each answer brings the two bounds closer, or doubles the reach.
    fn answered(&mut self, asked: i64, found: Found) {
        match found {
            Found::Batch { next } => {
                self.low = next;
                self.reach = self.reach * 2 + 1;
            }
            Found::Nothing => self.end = Some(asked),
            Found::Refused => self.high = Some(asked),
        }
        if self.high.is_some_and(|high| high <= self.low + 1) {
            self.end = Some(self.low);
        }
    }
}

/// The ends of these partitions, each of which reaches as far as it says here.
pub(super) async fn find(
    connection: &Connection,
    topic: &str,
    partitions: impl IntoIterator<Item = (u32, i64)>,
) -> Result<BTreeMap<u32, i64>> {
    let mut searches: BTreeMap<u32, Search> =
        partitions.into_iter().map(|(index, low)| (index, Search::new(low))).collect();
    loop {
        let asked: Vec<(u32, i64)> =
            searches.iter().filter_map(|(index, search)| Some((*index, search.question()?))).collect();
        if asked.is_empty() {
            return Ok(ends(searches));
        }
        let request = requests::fetch(topic, asked.iter().copied(), HEADER_LEN, Isolation::ReadUncommitted);
        let answer = match connection.call(request).await {
            Ok(answer) => answer,
            // An SPU that cannot be asked is believed.
            Err(error) if error.kind() == ErrorKind::UnsupportedVersion => {
                return Ok(ends(searches));
            }
            Err(error) => return Err(error),
        };
        let topics = answer.topics.into_iter().filter(|answer| answer.name == topic);
        let answers: BTreeMap<u32, _> = topics
            .flat_map(|answer| answer.partitions)
            .map(|answer| (answer.partition_index, (answer.error_code, answer.records.0)))
            .collect();
        for (index, offset) in asked {
            let here = |error: Error| error.with_partition(topic, index);
            let found =
                match answers.get(&index) {
                    Some((code, records)) => {
                        found(code, records, offset, &format!("partition {index} of topic {topic:?}"))
                    }
                    None => Err(connection
                        .protocol(format_args!("nothing is said of partition {index} of {topic:?}"))),
                };
            if let Some(search) = searches.get_mut(&index) {
                search.answered(offset, found.map_err(here)?);
            }
        }
    }
}

/// As far as they are known.
fn ends(searches: BTreeMap<u32, Search>) -> BTreeMap<u32, i64> {
    searches.into_iter().map(|(index, search)| (index, search.end.unwrap_or(search.low))).collect()
}

fn found(code: &ErrorCode, records: &[u8], offset: i64, what: &str) -> Result<Found> {
    match code {
        ErrorCode::None if records.is_empty() => Ok(Found::Nothing),
        ErrorCode::None => match BatchHeader::parse(records) {
            Ok(header) if header.base_offset <= offset && header.next_offset() > offset => {
                Ok(Found::Batch { next: header.next_offset() })
            }
            _ => {
                let message = format!("{what}: no batch was sent where offset {offset} was asked for");
                Err(Error::new(ErrorKind::Protocol, message))
            }
        },
        // The server has no code of its own for it.
        ErrorCode::Other(_) | ErrorCode::OffsetOutOfRange => Ok(Found::Refused),
        code => Err(Error::from_code(code, what, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a log with batches of this size; how many questions it takes, and the end that comes out.
    fn search(low: i64, end: i64, batch: i64) -> (u32, i64) {
        let mut search = Search::new(low);
        for questions in 0.. {
            let Some(asked) = search.question() else { return (questions, search.end.unwrap()) };
            let found = match asked {
                _ if asked > end => Found::Refused,
                _ if asked == end => Found::Nothing,
                _ => Found::Batch { next: ((asked / batch + 1) * batch).min(end) },
            };
            search.answered(asked, found);
        }
        unreachable!()
    }

    #[test]
    fn the_end_is_found_wherever_it_is() {
        for batch in [1, 2, 7, 1000] {
            for low in [0, 1, 5] {
                for end in low..low + 300 {
                    let (questions, found) = search(low, end, batch);
                    assert_eq!(found, end, "from {low} in batches of {batch}");
                    assert!(questions <= 20, "{questions} from {low} to {end} in batches of {batch}");
                }
            }
        }
        assert_eq!(search(42, 42, 1), (1, 42));
        let (questions, found) = search(0, i64::from(u32::MAX), 1);
        assert_eq!(found, i64::from(u32::MAX));
        assert!(questions <= 70, "{questions}");
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        assert_eq!(found(&ErrorCode::None, &[], 5, "p").unwrap(), Found::Nothing);
        assert_eq!(found(&ErrorCode::Other("leo".into()), &[], 5, "p").unwrap(), Found::Refused);
        assert_eq!(found(&ErrorCode::None, &[1; 100], 5, "p").unwrap_err().kind(), ErrorKind::Protocol);
        let moved = found(&ErrorCode::NotLeaderForPartition, &[], 5, "p").unwrap_err();
        assert!(moved.is_retriable());
    }
}
