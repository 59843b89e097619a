//! What is published in short form, and what a hold means, told in another way than the applier does it.

use rulecast_bundle::nft::Family;
use rulecast_bundle::{
    Bundle, Change, Empty, Group, GroupId, GroupKind, HealthCheck, Key, LaneKey, Member, Part, Proto, Scope,
    Settings, Value, name,
};

pub(crate) const GROUPS: usize = 3;

/// What a Service port has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Port {
    /// Where it answers; none: it does not exist.
    pub(crate) at: Option<u16>,
    pub(crate) drops: bool,
    /// A bit for each endpoint.
    pub(crate) members: u8,
}

/// A bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) groups: [Port; GROUPS],
    /// A bit each for settings, an element and a health check.
    pub(crate) rest: u8,
}

impl Content {
    pub(crate) fn bundle(&self) -> Bundle {
        let mut changes = Vec::new();
        let mut set = |key, value| changes.push(Change { key, value: Some(value) });
        for (n, group) in (0u8..).zip(&self.groups) {
            let Some(port) = group.at else { continue };
            let id = GroupId {
                addr: [10, 96, 0, n].into(),
                port: 80,
                proto: Proto::Tcp,
                kind: GroupKind::Cluster,
            };
            let keys = vec![LaneKey { lane: 0, addr: Some(id.addr), port }];
            let empty = if group.drops { Empty::Drop } else { Empty::Reject };
            let owner = format!("ns/s{n}");
            let value = Group { owner, port_name: String::new(), empty, affinity: None, keys };
            set(Key::Group(id), Value::Group(value));
            for bit in (0..3).filter(|bit| group.members & 1 << bit != 0) {
                let addr = [10, 1, n, bit].into();
                let key = Key::Member { group: id, scope: Scope::All, port: 8080, addr };
                set(key, Value::Member(Member::default()));
            }
        }
        if self.rest & 1 != 0 {
            let settings = Settings { conntrack_min: Some(1000), ..Settings::default() };
            set(Key::Settings, Value::Settings(settings));
        }
        if self.rest & 2 != 0 {
            let parts = vec![Part::Port(7)];
            let key = Key::Element { family: Family::V4, set: name("nodeports"), parts };
            set(key, Value::Element { owner: "ns/s0".into() });
        }
        if self.rest & 4 != 0 {
            let check = HealthCheck { owner: "ns/s0".into(), groups: Vec::new() };
            set(Key::HealthCheck(30000), Value::HealthCheck(check));
        }
        let mut bundle = Bundle::default();
        let _final = bundle.apply(&changes).unwrap();
        bundle
    }

    fn shape(&self) -> ([Option<u16>; GROUPS], u8) {
        (self.groups.map(|group| group.at), self.rest)
    }
}

/// What is to be in force.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// What is kept: of groups that are not published, with what was last known of them. True: it was gone back to.
    kept: Option<(Content, bool)>,
    /// What was published before the shape last changed.
    previous: Option<Content>,
}

impl Model {
    pub(crate) fn publish(&mut self, before: &Content, after: &Content) {
        if let Some((kept, _)) = &mut self.kept {
            for (kept, before) in kept.groups.iter_mut().zip(&before.groups) {
                if before.at.is_some() {
                    (kept.drops, kept.members) = (before.drops, before.members);
                }
            }
        }
        if before.shape() != after.shape() {
            self.previous = Some(before.clone());
        }
    }

    /// Whether something is to be done.
    pub(crate) fn hold(&mut self, published: &Content) -> bool {
        let new = self.kept.is_none();
        if new {
            self.kept = Some((published.clone(), false));
        }
        new
    }

    /// The same; none: there is nothing to go back to.
    pub(crate) fn use_previous(&mut self) -> Option<bool> {
        if matches!(self.kept, Some((_, true))) {
            return Some(false);
        }
        self.kept = Some((self.previous.clone()?, true));
        Some(true)
    }

    pub(crate) fn resume(&mut self) -> bool {
        self.kept.take().is_some()
    }

    pub(crate) fn effective(&self, published: &Content) -> Bundle {
        let Some((kept, _)) = &self.kept else { return published.bundle() };
        let mut content = kept.clone();
        for (group, published) in content.groups.iter_mut().zip(&published.groups) {
            if published.at.is_some() {
                (group.drops, group.members) = (published.drops, published.members);
            }
        }
        content.bundle()
    }

    pub(crate) fn last_known(&self, published: &Content) -> usize {
        let Some((kept, _)) = &self.kept else { return 0 };
        let groups = kept.groups.iter().zip(&published.groups);
        let gone = groups.filter(|(kept, published)| kept.at.is_some() && published.at.is_none());
        gone.map(|(kept, _)| kept.members.count_ones() as usize).sum()
    }
}
