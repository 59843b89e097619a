//! The encoding of a [`Ruleset`].

mod statement;

use statement::{read_fields, read_rules, write_fields, write_rules};

use crate::codec::{DecodeError, Reader, Writer};
use crate::name::Name;
use crate::nft::{
    Affinity, ChainDef, ChainKind, Data, Detour, Family, Field, Hook, HookPoint, Lane, NodeAddresses,
    Remember, Rule, Ruleset, SetDef, Statement,
};
use crate::record::{address_bytes, family_byte, fits, read_name, read_prefix, write_prefix};

/// The most chains, sets or rules in a chain that a ruleset may have.
const MAX_OBJECTS: usize = 1024;
/// The most lanes: they are numbered by one byte.
const MAX_LANES: usize = 255;

type Read<T> = Result<T, DecodeError>;

pub(crate) fn write(w: &mut Writer, set: &Ruleset) {
    w.list(&set.sets, write_set);
    w.list(&set.port_maps, write_set);
    w.list(&set.chains, write_chain);
    w.list(&set.lanes, write_lane);
    option(w, set.hairpin.as_ref(), write_name);
    option(w, set.node_addresses.as_ref(), |w, n| {
        write_name(w, &n.set);
        w.u8(n.primary.into());
        w.list(&n.prefixes, write_prefix);
    });
    option(w, set.sources.as_ref(), write_name);
}

/// Reads the rules of a family's table.
pub(crate) fn read(r: &mut Reader<'_>, family: Family) -> Read<Ruleset> {
    let ruleset = Ruleset {
        sets: r.list("sets", MAX_OBJECTS, read_set)?,
        port_maps: r.list("maps of a port", 16, read_set)?,
        chains: r.list("chains", MAX_OBJECTS, read_chain)?,
        lanes: r.list("lanes", MAX_LANES, read_lane)?,
        hairpin: read_option(r, read_name)?,
        node_addresses: read_option(r, |r| {
            Ok(NodeAddresses {
                set: read_name(r)?,
                primary: r.bool("primary")?,
                prefixes: r.list("nodePort prefixes", MAX_OBJECTS, read_prefix)?,
            })
        })?,
        sources: read_option(r, read_name)?,
    };
    check(&ruleset, family)?;
    Ok(ruleset)
}

/// What the kernel could not take, or would take for something else.
fn check(ruleset: &Ruleset, family: Family) -> Read<()> {
    let size = |fields: &[Field]| fields.iter().map(|f| field_bytes(*f, family)).sum::<usize>();
    for set in ruleset.sets.iter().chain(&ruleset.port_maps) {
        let data = if let Data::Fields(fields) = &set.data { size(fields) } else { 0 };
        fits([size(&set.key)].into_iter())?;
        fits([data].into_iter())?;
    }
    let chains = ruleset.chains.iter().flat_map(|c| &c.rules);
    let templates =
        ruleset.lanes.iter().flat_map(|l| l.pick.iter().chain(l.affinity.iter().flat_map(sticky)));
    for statement in chains.chain(templates).flatten() {
        match statement {
            // The kernel would compare as many bytes as it is given, whatever the packet has there.
            Statement::InPrefix { addr, .. } if Family::of(*addr) != family => {
                let value = family_byte(family).into();
                return Err(DecodeError::Invalid { what: "family of a prefix", value });
            }
            Statement::InSet { key, .. }
            | Statement::VerdictMap { key, .. }
            | Statement::Dnat { key, .. } => {
                fits([size(key)].into_iter())?;
            }
            Statement::Remember { key, data, .. } => fits([size(key), size(data)].into_iter())?,
            _ => {}
        }
    }
    Ok(())
}

fn field_bytes(field: Field, family: Family) -> usize {
    match field {
        Field::SourceAddr | Field::DestAddr | Field::OriginalDestAddr => address_bytes(family),
        Field::Proto | Field::DestPort | Field::OriginalDestPort | Field::RandomIndex => 4,
    }
}

fn sticky(affinity: &Affinity) -> impl Iterator<Item = &Rule> {
    affinity.look.iter().chain(affinity.remember.iter().flat_map(|r| &r.rules))
}

fn option<T>(w: &mut Writer, value: Option<&T>, write: impl Fn(&mut Writer, &T)) {
    w.u8(value.is_some().into());
    if let Some(value) = value {
        write(w, value);
    }
}

fn read_option<'a, T>(r: &mut Reader<'a>, read: impl Fn(&mut Reader<'a>) -> Read<T>) -> Read<Option<T>> {
    if r.bool("presence flag")? { read(r).map(Some) } else { Ok(None) }
}

fn write_name(w: &mut Writer, name: &Name) {
    w.text(name.as_str());
}

fn write_set(w: &mut Writer, set: &SetDef) {
    write_name(w, &set.name);
    write_fields(w, &set.key);
    match &set.data {
        Data::None => w.u8(0),
        Data::Verdict => w.u8(1),
        Data::Fields(fields) => {
            w.u8(2);
            write_fields(w, fields);
        }
    }
    w.u8(set.interval.into());
    w.u8(set.dynamic.into());
    w.u32(set.size);
}

fn read_set(r: &mut Reader<'_>) -> Read<SetDef> {
    Ok(SetDef {
        name: read_name(r)?,
        key: read_fields(r)?,
        data: match r.u8()? {
            0 => Data::None,
            1 => Data::Verdict,
            2 => Data::Fields(read_fields(r)?),
            v => return Err(DecodeError::Invalid { what: "set data", value: v.into() }),
        },
        interval: r.bool("interval")?,
        dynamic: r.bool("dynamic")?,
        size: r.u32()?,
    })
}

fn write_chain(w: &mut Writer, chain: &ChainDef) {
    write_name(w, &chain.name);
    option(w, chain.hook.as_ref(), |w, hook| {
        w.u8(u8::from(hook.kind == ChainKind::Nat));
        w.u8(hook.point as u8);
        w.u32(hook.priority.cast_unsigned());
    });
    write_rules(w, &chain.rules);
}

fn read_chain(r: &mut Reader<'_>) -> Read<ChainDef> {
    Ok(ChainDef { name: read_name(r)?, hook: read_option(r, read_hook)?, rules: read_rules(r)? })
}

fn read_hook(r: &mut Reader<'_>) -> Read<Hook> {
    Ok(Hook {
        kind: if r.bool("chain type")? { ChainKind::Nat } else { ChainKind::Filter },
        point: match r.u8()? {
            0 => HookPoint::Prerouting,
            1 => HookPoint::Input,
            2 => HookPoint::Forward,
            3 => HookPoint::Output,
            4 => HookPoint::Postrouting,
            v => return Err(DecodeError::Invalid { what: "hook", value: v.into() }),
        },
        priority: r.u32()?.cast_signed(),
    })
}

fn write_lane(w: &mut Writer, lane: &Lane) {
    for name in [&lane.verdicts, &lane.endpoints, &lane.chain] {
        write_name(w, name);
    }
    write_rules(w, &lane.pick);
    option(w, lane.affinity.as_ref(), write_affinity);
    w.list(&lane.sets, write_name);
    option(w, lane.detour.as_ref(), |w, detour| {
        write_name(w, &detour.map);
        write_name(w, &detour.chain);
    });
}

fn read_lane(r: &mut Reader<'_>) -> Read<Lane> {
    Ok(Lane {
        verdicts: read_name(r)?,
        endpoints: read_name(r)?,
        chain: read_name(r)?,
        pick: read_rules(r)?,
        affinity: read_option(r, read_affinity)?,
        sets: r.list("sets of a lane", 16, read_name)?,
        detour: read_option(r, |r| Ok(Detour { map: read_name(r)?, chain: read_name(r)? }))?,
    })
}

fn write_affinity(w: &mut Writer, affinity: &Affinity) {
    write_name(w, &affinity.chain);
    write_rules(w, &affinity.look);
    write_name(w, &affinity.members);
    option(w, affinity.remember.as_ref(), |w, remember| {
        write_name(w, &remember.verdicts);
        write_name(w, &remember.chain);
        write_rules(w, &remember.rules);
    });
}

fn read_affinity(r: &mut Reader<'_>) -> Read<Affinity> {
    Ok(Affinity {
        chain: read_name(r)?,
        look: read_rules(r)?,
        members: read_name(r)?,
        remember: read_option(r, |r| {
            Ok(Remember { verdicts: read_name(r)?, chain: read_name(r)?, rules: read_rules(r)? })
        })?,
    })
}
