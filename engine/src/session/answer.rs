//! What an answer of a fetch stream holds, looked through before any of it is believed.
//!
//! Only headers are read here: which complete batches there are, whether they continue where the last one ended, and what
//! follows them. A log has no holes, so a batch has to begin at or before the wanted offset and each further one at the end
//! of the one before it. What SmartModules put out is another matter: there the server says where to go on.

use fluvio_protocol::link::ErrorCode;
use wire::batch::{BatchHeader, Batches, Rest};

/// One answer, without its frame.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    /// What the server calls the stream; acknowledgements name it.
    pub(crate) session: u32,
    pub(crate) code: &'a ErrorCode,
    /// Where to go on behind what SmartModules have seen; not above 0 if there are none.
    pub(crate) next_filter_offset: i64,
    pub(crate) records: &'a [u8],
}

/// What complete batches there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes of the complete batches.
    pub(super) bytes: usize,
    /// The last one.
    pub(super) last: Option<BatchHeader>,
    /// The offset behind them.
    pub(super) next: i64,
    /// What follows them.
    pub(super) rest: Rest,
}

/// The batches do not continue where the last one ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) begins: i64,
    pub(super) expected: i64,
}

/// Where the first batch of an answer begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// At this offset.
    At(i64),
    /// It holds this offset.
    Around(i64),
    /// Modules were at work: not behind this offset at the earliest.
    Anything(i64),
}

impl Expected {
    fn admits(self, header: &BatchHeader) -> bool {
        match self {
            Expected::At(offset) => header.base_offset == offset,
            Expected::Around(offset) => header.base_offset <= offset && header.next_offset() > offset,
            Expected::Anything(offset) => header.next_offset() >= offset,
        }
    }

    fn offset(self) -> i64 {
        let (Expected::At(offset) | Expected::Around(offset) | Expected::Anything(offset)) = self;
        offset
    }

    /// What follows a batch that ends in front of `next`.
    fn behind(self, next: i64) -> Self {
        match self {
            Expected::Anything(_) => Expected::Anything(next),
            Expected::At(_) | Expected::Around(_) => Expected::At(next),
        }
    }
}

/// Looks through `records`, which should begin with the batch that is expected.
pub(super) fn look_through(records: &[u8], mut expected: Expected) -> Result<Found, Misfit> {
    let mut batches = Batches::new(records);
    let mut found = Found { bytes: 0, last: None, next: expected.offset(), rest: Rest::Nothing };
    let check = |expected: Expected, header: &BatchHeader| match expected.admits(header) {
        true => Ok(()),
        false => Err(Misfit { begins: header.base_offset, expected: expected.offset() }),
    };
    for (range, header) in batches.by_ref() {
        check(expected, &header)?;
        let next = header.next_offset();
        found = Found { bytes: range.end, last: Some(header), next, ..found };
        expected = expected.behind(next);
    }
    found.rest = batches.rest();
    // The cut batch counts too: it is what an answer that holds no complete one is about.
    if let Rest::Cut { needed: Some(_) } = found.rest
        && let Ok(header) = BatchHeader::parse(&records[found.bytes..])
    {
        check(expected, &header)?;
    }
    Ok(found)
}

/// Whether a server says that an offset lies beyond the end of its log. It has a code for that and does not use it.
pub(super) fn is_beyond_the_end(code: &ErrorCode) -> bool {
    match code {
        ErrorCode::OffsetOutOfRange => true,
        ErrorCode::Other(text) => text.contains("is greater than leo"),
        _ => false,
    }
}
