//! The kernel: reading what it holds and carrying out steps.

use std::collections::HashSet;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::prefix_contains;
use rulecast_netlink::ipset::{Entry, Ipsets, SetHeader, SetOperation};
use rulecast_netlink::ipvs::{self, DestinationState, Operation, VirtualServer};
use rulecast_netlink::{AddressOperation, Device, Error, Failed, Sent};

use super::DEVICE;
use super::sets::{Set, entry, family};
use super::state::{Scheduling, Server, State, Step};
use crate::backend::{Applied, BackendError};

/// The firewall mark by which a scheduler is tried. Nothing else uses IPVS by marks on a node where rulecast does.
const TRY_MARK: u32 = 0x7263_0001;

/// The sockets.
pub(super) struct Kernel {
    ipvs: ipvs::Ipvs,
    sets: Ipsets,
    device: Device,
}

impl Kernel {
    /// Opens the sockets and makes the device; nothing that packets would notice.
    pub(super) fn open() -> Result<Self, BackendError> {
        let ipvs = ipvs::Ipvs::open().map_err(unsupported)?;
        let sets = Ipsets::open().map_err(unsupported)?;
        let device = Device::open_or_create(DEVICE).map_err(unsupported)?;
        Ok(Self { ipvs, sets, device })
    }

    /// Fails when the kernel has no such scheduler.
    pub(super) fn check_scheduler(&mut self, name: &str) -> Result<(), BackendError> {
        if self.ipvs.has_scheduler(name, TRY_MARK)? {
            return Ok(());
        }
        let message = format!(
            "the kernel has no IPVS scheduler {name}: load the module ip_vs_{name}, or choose another one in the pool"
        );
        Err(BackendError::Unsupported { reason: "UnknownScheduler", message })
    }

    /// Makes the sets of a family that are not there.
    pub(super) fn create_sets(&mut self, family: Family) -> Result<Sent, BackendError> {
        let create = Set::ALL.map(|set| SetOperation::Create(set.name(family), set.kind(), family));
        self.sets.apply(&create).map_err(|failed| unsupported(failed.error))
    }

    /// What the kernel holds. Of virtual servers, all but those that `foreign` names: IPVS belongs to the proxy.
    pub(super) fn read(&mut self, foreign: impl Fn(&VirtualServer) -> bool) -> Result<State, BackendError> {
        let mut state = State::default();
        for (at, how) in self.ipvs.services()? {
            if foreign(&at) {
                continue;
            }
            let destinations = self.ipvs.destinations(&at)?;
            // One that is not translated is of no use here; it goes and comes back.
            let strange = destinations.iter().filter(|d| !d.translates);
            let remove: Vec<_> = strange.map(|d| Operation::DeleteDestination(at, d.destination)).collect();
            self.ipvs.apply(&remove).map_err(|failed| failed.error)?;
            let weights = destinations.iter().filter(|d| d.translates).map(|d| (d.destination, d.weight));
            let ipvs::Scheduling { scheduler, persistence, fallback } = how;
            let scheduling = Scheduling { scheduler: scheduler.into(), persistence, fallback };
            state.insert(at, Server { scheduling, destinations: weights.collect() });
        }
        for (set, family, name) in names() {
            match self.sets.entries(&name) {
                Ok(entries) => state.entries.extend(entries.into_iter().map(|entry| (set, entry))),
                Err(error) if error.is_not_found() && family == Family::V6 => {}
                Err(error) => return Err(error.into()),
            }
        }
        state.addrs.extend(self.device.addresses()?);
        Ok(state)
    }

    /// The destinations of a virtual server, with their connections; none: it is gone.
    pub(super) fn destinations(&mut self, at: &VirtualServer) -> Result<Vec<DestinationState>, BackendError> {
        match self.ipvs.destinations(at) {
            Err(Error::Refused { errno, .. }) if errno == nix::errno::Errno::ESRCH as i32 => Ok(Vec::new()),
            result => Ok(result?),
        }
    }

    /// Carries out steps in their order. Runs of steps of one kind travel together; when one is refused, those of its run
    /// may have been carried out, and none of later ones.
    pub(super) fn execute(&mut self, steps: &[Step]) -> Result<Applied, BackendError> {
        let mut sent = Sent::default();
        for run in steps.chunk_by(|a, b| transport(a) == transport(b)) {
            sent += match transport(&run[0]) {
                Transport::Sets => self.sets.apply(&set_operations(run)),
                Transport::Ipvs => self.ipvs.apply(&run.iter().filter_map(operation).collect::<Vec<_>>()),
                Transport::Device => self.device.apply(&run.iter().filter_map(address).collect::<Vec<_>>()),
            }
            .map_err(|Failed { error, .. }| unsupported(error))?;
        }
        Ok(Applied { kernel: sent.kernel, bytes: sent.bytes, messages: sent.messages })
    }

    pub(super) fn set_timeouts(&mut self, timeouts: ipvs::Timeouts) -> Result<(), BackendError> {
        if timeouts != ipvs::Timeouts::default() {
            self.ipvs.set_timeouts(timeouts)?;
        }
        Ok(())
    }

    /// What shows cheaply that somebody else was here: virtual servers, entries of sets, addresses.
    pub(super) fn look(&mut self) -> Result<Look, BackendError> {
        let services = self.ipvs.services()?;
        let sets = self.sets.sets()?;
        let ours = names().into_iter().map(|(set, family, name)| {
            (set, family, sets.iter().find(|header| header.name == name).cloned())
        });
        Ok(Look { services, sets: ours.collect(), addrs: self.device.addresses()? })
    }

    /// Removes our virtual servers, the sets and, last of all, the device. Ours are those that were in use last, and those
    /// that sets and device tell of; what others have in ranges of their own stays.
    pub(super) fn clean_up(mut self, last: &State) -> Result<(), BackendError> {
        let mut served = HashSet::new();
        for family in [Family::V4, Family::V6] {
            match self.sets.entries(&Set::Served.name(family)) {
                Ok(entries) => served.extend(entries),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let addrs: HashSet<IpAddr> = self.device.addresses()?.into_iter().collect();
        let ours = |at: &VirtualServer| {
            last.servers.contains_key(at) || addrs.contains(&at.addr) || served.contains(&entry(at))
        };
        let services = self.ipvs.services()?.into_iter().filter(|(at, _)| ours(at));
        let remove: Vec<_> = services.map(|(at, _)| Operation::DeleteService(at)).collect();
        self.ipvs.apply(&remove).map_err(|failed| failed.error)?;
        let there = self.sets.sets()?;
        let names = names().into_iter().filter(|(_, _, name)| there.iter().any(|set| set.name == *name));
        let destroy: Vec<_> = names.map(|(_, _, name)| SetOperation::Destroy(name)).collect();
        self.sets.apply(&destroy).map_err(|failed| failed.error)?;
        Ok(self.device.delete()?)
    }
}

/// See [`Kernel::look`].
pub(super) struct Look {
    pub(super) services: Vec<(VirtualServer, ipvs::Scheduling)>,
    /// Each set of ours; none: it is not there.
    pub(super) sets: Vec<(Set, Family, Option<SetHeader>)>,
    pub(super) addrs: Vec<IpAddr>,
}

/// Whether a virtual server lies in one of these ranges.
pub(super) fn excluded(ranges: &[(IpAddr, u8)], at: &VirtualServer) -> bool {
    ranges.iter().any(|range| prefix_contains(*range, at.addr))
}

fn names() -> Vec<(Set, Family, String)> {
    let both = [Family::V4, Family::V6];
    both.iter().flat_map(|f| Set::ALL.map(|set| (set, *f, set.name(*f)))).collect()
}

/// What is missing on this node, in words that name the remedy.
fn unsupported(error: Error) -> BackendError {
    let module = match &error {
        Error::NoIpvs(_) => "ip_vs",
        Error::NoIpset(_) => "ip_set",
        Error::NoModule { module, .. } => module,
        _ => return error.into(),
    };
    let message = format!(
        "{error} Run `modprobe {module}` on the node, or set the RulePool's mode to nftables or iptables"
    );
    BackendError::Unsupported { reason: "MissingModule", message }
}

#[derive(PartialEq, Eq)]
enum Transport {
    Sets,
    Ipvs,
    Device,
}

fn transport(step: &Step) -> Transport {
    match step {
        Step::AddEntry(..) | Step::RemoveEntry(..) => Transport::Sets,
        Step::AddAddr(_) | Step::RemoveAddr(_) => Transport::Device,
        _ => Transport::Ipvs,
    }
}

/// Entries that follow each other and go into one set, or out of it, are one message.
fn set_operations(run: &[Step]) -> Vec<SetOperation> {
    let part = |step: &Step| match step {
        Step::AddEntry(set, entry) => Some((true, *set, family(entry.addr))),
        Step::RemoveEntry(set, entry) => Some((false, *set, family(entry.addr))),
        _ => None,
    };
    let entries = |steps: &[Step]| -> Vec<Entry> {
        let entry = |step: &Step| match step {
            Step::AddEntry(_, entry) | Step::RemoveEntry(_, entry) => Some(*entry),
            _ => None,
        };
        steps.iter().filter_map(entry).collect()
    };
    let operations = run.chunk_by(|a, b| part(a) == part(b)).filter_map(|steps| {
        let (add, set, family) = part(&steps[0])?;
        let name = set.name(family);
        Some(if add {
            SetOperation::Add(name, entries(steps))
        } else {
            SetOperation::Remove(name, entries(steps))
        })
    });
    operations.collect()
}

fn operation(step: &Step) -> Option<Operation> {
    let how = |scheduling: &Scheduling| ipvs::Scheduling {
        scheduler: scheduling.scheduler.to_string(),
        persistence: scheduling.persistence,
        fallback: scheduling.fallback,
    };
    Some(match step {
        Step::NewServer(at, scheduling) => Operation::NewService(*at, how(scheduling)),
        Step::SetServer(at, scheduling) => Operation::SetService(*at, how(scheduling)),
        Step::RemoveServer(at) => Operation::DeleteService(*at),
        Step::NewDestination(at, to, weight) => Operation::NewDestination(*at, *to, *weight),
        Step::SetDestination(at, to, weight) => Operation::SetDestination(*at, *to, *weight),
        Step::RemoveDestination(at, to) => Operation::DeleteDestination(*at, *to),
        _ => return None,
    })
}

fn address(step: &Step) -> Option<AddressOperation> {
    match step {
        Step::AddAddr(addr) => Some(AddressOperation::Add(*addr)),
        Step::RemoveAddr(addr) => Some(AddressOperation::Remove(*addr)),
        _ => None,
    }
}
