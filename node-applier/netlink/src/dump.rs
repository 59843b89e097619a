//! Reading the kernel's state.

use rulecast_bundle::nft::Family;
use rustix::net::RecvFlags;

use crate::TABLE;
use crate::attr::{Attributes, Buffer, messages};
use crate::compare::Content;
use crate::connection::{ATTEMPTS, Connection};
use crate::describe::family_word;
use crate::error::Error;
use crate::expr::family_number;
use crate::link::Reply;
use crate::set::SetInfo;
use crate::uapi::*;

/// An element of a set or map, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The key's padded bytes; what [`Key::as_bytes`](crate::Key::as_bytes) gave when it was added, or the range's
    /// first key.
    pub key: &'a [u8],
    /// The range's last key, in interval sets of concatenations; else empty.
    pub key_end: &'a [u8],
    /// In interval sets of single components: this ends a range, its key being the first one behind it.
    pub ends_range: bool,
    /// A map element's data; else empty.
    pub data: &'a [u8],
    /// A verdict map element's verdict: the chain it goes to, or `drop`.
    pub verdict: Option<&'a str>,
}

impl<'a> Element<'a> {
    pub(crate) fn read(element: Attributes<'a>) -> Option<Self> {
        let data = element.nest(NFTA_SET_ELEM_DATA);
        let verdict = data.nest(NFTA_DATA_VERDICT);
        Some(Self {
            key: element.nest(NFTA_SET_ELEM_KEY).raw(NFTA_DATA_VALUE)?,
            key_end: element.nest(NFTA_SET_ELEM_KEY_END).raw(NFTA_DATA_VALUE).unwrap_or_default(),
            ends_range: element.number(NFTA_SET_ELEM_FLAGS).unwrap_or(0) & NFT_SET_ELEM_INTERVAL_END != 0,
            data: data.raw(NFTA_DATA_VALUE).unwrap_or_default(),
            verdict: match verdict.number(NFTA_VERDICT_CODE) {
                Some(NF_DROP) => Some("drop"),
                Some(_) => verdict.text(NFTA_VERDICT_CHAIN),
                None => None,
            },
        })
    }
}

impl Connection {
    /// The names of all chains of the table; none when there is no table.
    pub fn chains(&mut self, family: Family) -> Result<Vec<String>, Error> {
        let what = || format!("list the chains of table {} {TABLE}", family_word(family));
        self.dump(
            NFT_MSG_GETCHAIN,
            family,
            what,
            |_| (),
            Vec::new,
            |chains, chain| {
                if chain.text(NFTA_TABLE) == Some(TABLE) {
                    chains.extend(chain.text(NFTA_CHAIN_NAME).map(str::to_owned));
                }
            },
        )
    }

    /// All sets and maps of the table; none when there is no table.
    pub fn sets(&mut self, family: Family) -> Result<Vec<SetInfo>, Error> {
        let what = || format!("list the sets of table {} {TABLE}", family_word(family));
        let table = |request: &mut Buffer| request.text(NFTA_TABLE, TABLE);
        let sets = self.dump(NFT_MSG_GETSET, family, what, table, Vec::new, |sets, set| {
            if set.text(NFTA_TABLE) == Some(TABLE) {
                sets.extend(read_set(set));
            }
        });
        match sets {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            sets => sets,
        }
    }

    /// Chains, rules and sets of the table; nothing of a table that is not there.
    pub fn content(&mut self, family: Family) -> Result<Content, Error> {
        let ours = |attributes: Attributes<'_>| attributes.text(NFTA_TABLE) == Some(TABLE);
        let what = || format!("list the chains of table {} {TABLE}", family_word(family));
        let mut content = self.dump(
            NFT_MSG_GETCHAIN,
            family,
            what,
            |_| (),
            Content::default,
            |content, chain| {
                if ours(chain) {
                    content.take_chain(chain);
                }
            },
        )?;
        let what = || format!("list the rules of table {} {TABLE}", family_word(family));
        let table = |request: &mut Buffer| request.text(NFTA_TABLE, TABLE);
        let rules = self.dump(NFT_MSG_GETRULE, family, what, table, Content::default, |content, rule| {
            if ours(rule) {
                content.take_rule(rule);
            }
        })?;
        content.rules = rules.rules;
        content.sets = self.sets(family)?;
        Ok(content)
    }

    /// Folds the elements of a set or map into `start()`, one by one as they arrive. When a change in the ruleset
    /// disturbs the dump it begins anew, with a new `start()`.
    pub fn elements<T>(
        &mut self,
        family: Family,
        set: &str,
        start: impl FnMut() -> T,
        mut each: impl FnMut(&mut T, Element<'_>),
    ) -> Result<T, Error> {
        let what = || format!("list the elements of set {set}, table {} {TABLE}", family_word(family));
        let request = |request: &mut Buffer| {
            request.text(NFTA_TABLE, TABLE);
            request.text(NFTA_SET_ELEM_LIST_SET, set);
        };
        self.dump(NFT_MSG_GETSETELEM, family, what, request, start, |all, list| {
            for (_, element) in list.nest(NFTA_SET_ELEM_LIST_ELEMENTS).iter() {
                if let Some(element) = Element::read(Attributes(element)) {
                    each(all, element);
                }
            }
        })
    }

    fn dump<T>(
        &mut self,
        kind: u16,
        family: Family,
        what: impl Fn() -> String,
        write: impl Fn(&mut Buffer),
        mut start: impl FnMut() -> T,
        mut each: impl FnMut(&mut T, Attributes<'_>),
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let seq = self.request(kind, NLM_F_DUMP, family_number(family), &write)?;
            match self.read_dump(seq, &what, start(), &mut each) {
                Err(Error::Interrupted) => (),
                result => return result,
            }
        }
        Err(Error::Interrupted)
    }

    /// Reads the answers to a dump request until the last one. A dump is in pieces, and the ruleset may change between
    /// two of them. The kernel then marks what follows, but not in dumps of elements; there, as nft does, the generation
    /// in each message tells.
    fn read_dump<T>(
        &mut self,
        seq: u32,
        what: impl Fn() -> String,
        mut all: T,
        mut each: impl FnMut(&mut T, Attributes<'_>),
    ) -> Result<T, Error> {
        let mut generation = None;
        while let Some(datagram) = self.link.receive(RecvFlags::empty())? {
            for (_, message) in messages(datagram).filter(|(_, m)| m.seq == seq) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(Error::Interrupted);
                }
                match Reply::of(&message) {
                    Some(reply) => return Err(reply.into_error(|_| what())),
                    None if message.kind == NLMSG_DONE => return Ok(all),
                    None if *generation.get_or_insert(message.resource()) != message.resource() => {
                        return Err(Error::Interrupted);
                    }
                    None => each(&mut all, message.attributes()),
                }
            }
        }
        Err(Error::Timeout("a dump"))
    }
}

pub(crate) fn read_set(set: Attributes<'_>) -> Option<SetInfo> {
    let data_type = set.number(NFTA_SET_DATA_TYPE).unwrap_or(0);
    // Of a verdict map, the kernel tells the size of its own struct.
    let data_len = if data_type == NFT_DATA_VERDICT { None } else { set.number(NFTA_SET_DATA_LEN) };
    Some(SetInfo {
        name: set.text(NFTA_SET_NAME)?.to_owned(),
        flags: set.number(NFTA_SET_FLAGS).unwrap_or(0),
        key_type: set.number(NFTA_SET_KEY_TYPE).unwrap_or(0),
        key_len: set.number(NFTA_SET_KEY_LEN)?,
        data_type,
        data_len: data_len.unwrap_or(0),
        size: set.nest(NFTA_SET_DESC).number(NFTA_SET_DESC_SIZE).unwrap_or(0),
    })
}
