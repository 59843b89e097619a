//! Holds and the last change of the shape as files: `length of header, header as JSON, frame, hash of all that`.

use std::time::{Duration, SystemTime};

use rulecast_bundle::ChunkId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Hold, Mask, Previous, Wish};

/// The version of both files.
const FORMAT: u32 = 1;

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Torn or altered.
    #[error("it is damaged")]
    Damaged,
    /// Of a later version.
    #[error("it has format {0}, which this version does not know")]
    Format(u32),
}

#[derive(Serialize, Deserialize)]
struct HoldHeader {
    format: u32,
    wish: String,
    text: String,
    since: u64,
    sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct PreviousHeader {
    format: u32,
    sequence: u64,
    epoch: u64,
}

impl Hold {
    /// As a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (wish, text) = (self.wish.reason().to_owned(), self.text.clone());
        let header = HoldHeader { format: FORMAT, wish, text, since, sequence: self.sequence };
        seal(&header, &self.mask.encode())
    }
}

impl Previous {
    /// As a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = PreviousHeader { format: FORMAT, sequence: self.sequence, epoch: self.epoch };
        seal(&header, &self.mask)
    }
}

/// Reads a hold; none from an empty file.
pub fn decode_hold(bytes: &[u8]) -> Result<Option<Hold>, BadFile> {
    let Some((header, frame)) = open::<HoldHeader>(bytes, |header| header.format)? else { return Ok(None) };
    let wish = [Wish::Hold, Wish::UsePrevious].into_iter().find(|wish| wish.reason() == header.wish);
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(header.since));
    Ok(Some(Hold {
        wish: wish.ok_or(BadFile::Damaged)?,
        text: header.text,
        since: since.ok_or(BadFile::Damaged)?,
        sequence: header.sequence,
        mask: Mask::decode(frame).map_err(|_| BadFile::Damaged)?,
    }))
}

/// Reads the last change of the shape; none from an empty file.
pub fn decode_previous(bytes: &[u8]) -> Result<Option<Previous>, BadFile> {
    let Some((header, frame)) = open::<PreviousHeader>(bytes, |header| header.format)? else {
        return Ok(None);
    };
    Ok(Some(Previous { sequence: header.sequence, epoch: header.epoch, mask: frame.to_vec() }))
}

fn seal(header: &impl Serialize, frame: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).expect("a header is plain data");
    let length = u32::try_from(header.len()).expect("a header is small").to_be_bytes();
    let body = [&length[..], &header, frame].concat();
    let ChunkId(hash) = ChunkId::of(&body);
    [body, hash.to_vec()].concat()
}

fn open<H: DeserializeOwned>(
    bytes: &[u8],
    format: impl Fn(&H) -> u32,
) -> Result<Option<(H, &[u8])>, BadFile> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (body, hash) = bytes.split_last_chunk::<20>().ok_or(BadFile::Damaged)?;
    if ChunkId::of(body).0 != *hash {
        return Err(BadFile::Damaged);
    }
    let (length, rest) = body.split_first_chunk::<4>().ok_or(BadFile::Damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BadFile::Damaged)?;
    let (header, frame) = rest.split_at_checked(length).ok_or(BadFile::Damaged)?;
    let header: H = serde_json::from_slice(header).map_err(|_| BadFile::Damaged)?;
    match format(&header) {
        FORMAT => Ok(Some((header, frame))),
        other => Err(BadFile::Format(other)),
    }
}
