//! What answers mean to the session of a partition: each is checked against where the session stands before anything of it
//! is handed out.

use fluvio_protocol::link::ErrorCode;
use wire::batch::{BatchHeader, Rest};

use super::{Action, Anchor, Astray, Fetch, PAUSES, State, Stream, Time};
use crate::error::{Error, ErrorKind};
use crate::session::answer::{Answer, Expected, Found, Misfit, look_through};

impl Fetch {
    /// The answer to [`Action::Check`].
    pub(crate) fn checked(
        &mut self,
        now: Time,
        request: u64,
        code: &ErrorCode,
        records: &[u8],
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.state, State::Checking { request: asked } if asked == request) {
            return;
        }
        match code {
            ErrorCode::None => {}
            // No proof of anything: retention removes what is old.
            ErrorCode::OffsetEvicted { .. } => {
                if self.anchor == Anchor::Unknown {
                    self.anchor = Anchor::Nothing;
                }
                return self.open(out);
            }
            code => return self.failed(now, code, out),
        }
        if records.is_empty() {
            return self.ends_before(out);
        }
        let Ok(header) = BatchHeader::parse(records) else {
            return self.distrust(format!("{}: what should be a batch is none", self.name()), out);
        };
        match self.anchor {
            Anchor::Known(known) if !is_same(&known, &header) => self.deleted(
                format!(
                    "was deleted and created again: the batch of partition {} at offset {} is another one than was read",
                    self.partition, known.base_offset
                ),
                out,
            ),
            Anchor::Unknown if header.base_offset >= self.position || header.next_offset() < self.position => {
                let message = format!(
                    "{}: a batch from {} to {} was sent where offset {} was asked for",
                    self.name(),
                    header.base_offset,
                    header.last_offset(),
                    self.position - 1
                );
                self.distrust(message, out);
            }
            Anchor::Unknown => {
                self.anchor = Anchor::Known(header);
                self.open(out);
            }
            _ => self.open(out),
        }
    }

    /// An answer of a stream.
    pub(crate) fn answered(&mut self, now: Time, number: u64, answer: &Answer<'_>, out: &mut Vec<Action>) {
        let (paused, max_bytes) = (self.paused, self.max_bytes);
        let Some(stream) = self.stream(number) else { return };
        let failed = answer.code.is_error();
        if !failed && (stream.one.is_some() || paused) {
            stream.session = Some(answer.session);
            stream.owed |= paused;
            stream.dropped |= stream.one.is_some();
            return;
        }
        if let Some(found) = self.believe(now, answer, out) {
            self.advance(answer, found, max_bytes, out);
        }
        if failed && !self.is_over() {
            self.failed(now, answer.code, out);
        }
    }

    /// The answer to [`Action::FetchOne`].
    pub(crate) fn fetched(&mut self, now: Time, request: u64, answer: &Answer<'_>, out: &mut Vec<Action>) {
        let paused = self.paused;
        let State::Streaming(stream) = &mut self.state else { return };
        let Some((_, asked)) = stream.one.filter(|(number, _)| *number == request) else { return };
        stream.one = None;
        if paused {
            stream.owed = true;
            return;
        }
        // Nothing of what the stream has sent meanwhile continues here.
        stream.astray = Astray::No;
        let session = stream.session.unwrap_or_default();
        if answer.code.is_error() {
            // Another one takes its place, or none.
            self.leave(out);
            return self.failed(now, answer.code, out);
        }
        if answer.records.is_empty() {
            return self.distrust(format!("{}: nothing is there where a batch was", self.name()), out);
        }
        if let Some(found) = self.believe(now, answer, out) {
            self.advance(&Answer { session, ..*answer }, found, asked, out);
            if let State::Streaming(stream) = &mut self.state {
                stream.astray = Astray::Possible;
                if stream.dropped && stream.one.is_none() {
                    self.leave(out);
                    self.start(out);
                }
            }
        }
    }

    /// The server could not take an acknowledgement.
    pub(crate) fn refused(&mut self, now: Time, number: u64, code: &ErrorCode, out: &mut Vec<Action>) {
        if self.stream(number).is_some() {
            match code {
                // It has forgotten the stream.
                ErrorCode::FetchSessionNotFoud => self.wait(now, out),
                code => self.failed(now, code, out),
            }
        }
    }

    /// The stream of this number, if it is the one that counts.
    fn stream(&mut self, number: u64) -> Option<&mut Stream> {
        match &mut self.state {
            State::Streaming(stream) if stream.number == number => Some(stream),
            _ => None,
        }
    }

    /// What an answer holds, if it is about this partition and goes on at the position.
    fn believe(&mut self, now: Time, answer: &Answer<'_>, out: &mut Vec<Action>) -> Option<Found> {
        if (answer.topic, answer.partition) != (&*self.topic, self.partition) {
            let message = format!(
                "{}: an answer is about partition {} of topic {:?}",
                self.name(),
                answer.partition,
                answer.topic
            );
            self.distrust(message, out);
            return None;
        }
        let filtered = answer.next_filter_offset > 0;
        // Behind a batch that was read, or at the very beginning, a batch begins exactly there.
        let exact = match self.anchor {
            Anchor::Known(header) => header.next_offset() == self.position,
            Anchor::Nothing | Anchor::Unknown => self.position == 0,
        };
        let expected = if exact { Expected::At(self.position) } else { Expected::Around(self.position) };
        let expected = if filtered { Expected::Anything(self.position) } else { expected };
        match look_through(answer.records, expected) {
            // The server goes on behind what the modules have seen: what is cut would not come again.
            Ok(found) if filtered && found.rest != Rest::Nothing => {
                self.distrust(format!("{}: what SmartModules put out was cut", self.name()), out);
                None
            }
            Ok(found) => Some(found),
            Err(Misfit { begins, expected }) => {
                if let State::Streaming(stream) = &mut self.state {
                    match stream.astray {
                        Astray::No => {}
                        Astray::Possible => {
                            stream.astray = Astray::Since(now);
                            return None;
                        }
                        Astray::Since(_) => return None,
                    }
                }
                let message = format!(
                    "{}: a batch begins at offset {begins} where {expected} was to be expected",
                    self.name()
                );
                self.distrust(message, out);
                None
            }
        }
    }

    /// Takes in what an answer of `asked` bytes holds.
    fn advance(&mut self, answer: &Answer<'_>, found: Found, asked: usize, out: &mut Vec<Action>) {
        let filtered = answer.next_filter_offset > 0;
        let failed = answer.code.is_error();
        let next = if filtered { found.next.max(answer.next_filter_offset) } else { found.next };
        let from = self.position;
        if next > from {
            self.position = next;
            (self.confirmed, self.relative) = (true, false);
            self.nonsense = 0;
            self.pause = PAUSES[0];
            self.anchor = match found.last {
                Some(last) if !filtered => Anchor::Known(last),
                _ => Anchor::Unknown,
            };
        }
        let goes_on = match found.rest {
            _ if failed => false,
            Rest::Cut { needed } if found.last.is_none() => {
                if let State::Streaming(stream) = &mut self.state {
                    stream.session = Some(answer.session);
                }
                self.fetch_one(needed, asked, out);
                false
            }
            Rest::Invalid(_) => false,
            Rest::Cut { .. } | Rest::Nothing => true,
        };
        if goes_on && let State::Streaming(stream) = &mut self.state {
            stream.session = Some(answer.session);
            stream.astray = match found.rest {
                Rest::Cut { .. } => Astray::Possible,
                _ => Astray::No,
            };
            out.push(Action::Acknowledge { stream: stream.number, session: answer.session, offset: next });
        }
        if found.bytes > 0 {
            out.push(Action::Deliver { from, bytes: found.bytes });
        }
        if let (Rest::Invalid(error), false) = (found.rest, failed) {
            let error = Error::new(ErrorKind::Corrupt, format!("{}: {error}", self.name()));
            self.end(error.with_partition(&self.topic, self.partition), out);
        }
    }

    /// An answer of `asked` bytes does not hold the next batch, which has `needed` bytes as far as that is known. Grows
    /// with every attempt, so that a server that cuts elsewhere is not asked for ever.
    fn fetch_one(&mut self, needed: Option<usize>, asked: usize, out: &mut Vec<Action>) {
        let needed = needed.unwrap_or(0).max(asked.saturating_add(1));
        if needed > self.most {
            let message = format!(
                "{}: the batch at offset {} needs answers of {needed} bytes, max_frame_size_bytes allows {}",
                self.name(),
                self.position,
                self.most
            );
            let error = Error::new(ErrorKind::RecordTooLarge, message);
            return self.end(error.with_partition(&self.topic, self.partition), out);
        }
        let max_bytes = if needed > asked + 1 { needed } else { asked.saturating_mul(2) }.min(self.most);
        let request = self.number();
        if let State::Streaming(stream) = &mut self.state {
            stream.one = Some((request, max_bytes));
            out.push(Action::FetchOne { request, offset: self.position, max_bytes });
        }
    }
}

/// Whether two headers are those of one batch.
fn is_same(one: &BatchHeader, other: &BatchHeader) -> bool {
    let facts = |header: &BatchHeader| {
        (
            header.base_offset,
            header.crc,
            header.first_timestamp,
            header.max_timestamp,
            header.last_offset_delta,
        )
    };
    facts(one) == facts(other)
}
