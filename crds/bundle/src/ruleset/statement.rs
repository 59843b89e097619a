//! The encoding of rules: lists of statements.

use super::{MAX_OBJECTS, Read, write_name};
use crate::codec::{DecodeError, Reader, Writer};
use crate::nft::{Field, Rule, Statement};
use crate::record::{read_name, read_prefix, write_ip};

/// nf_tables has 16 registers of 4 bytes; five IPv6-sized fields would not fit.
const MAX_FIELDS: usize = 6;

pub(super) fn write_rules(w: &mut Writer, rules: &[Rule]) {
    w.list(rules, |w, rule: &Rule| w.list(rule, write_statement));
}

pub(super) fn read_rules(r: &mut Reader<'_>) -> Read<Vec<Rule>> {
    r.list("rules of a chain", MAX_OBJECTS, |r| r.list("statements of a rule", 32, read_statement))
}

pub(super) fn write_fields(w: &mut Writer, fields: &[Field]) {
    w.list(fields, |w, field| w.u8(field_byte(*field)));
}

pub(super) fn read_fields(r: &mut Reader<'_>) -> Read<Vec<Field>> {
    r.list("fields of a key", MAX_FIELDS, read_field)
}

const FIELDS: [Field; 7] = [
    Field::SourceAddr,
    Field::DestAddr,
    Field::Proto,
    Field::DestPort,
    Field::OriginalDestAddr,
    Field::OriginalDestPort,
    Field::RandomIndex,
];

fn field_byte(field: Field) -> u8 {
    let position = FIELDS.iter().position(|f| *f == field).expect("every field is listed");
    u8::try_from(position).expect("few fields")
}

fn read_field(r: &mut Reader<'_>) -> Read<Field> {
    let byte = r.u8()?;
    let field = FIELDS.get(usize::from(byte)).copied();
    field.ok_or(DecodeError::Invalid { what: "field", value: byte.into() })
}

/// nft quotes an interface's name and takes a `*` at its end for a pattern.
fn read_interface(r: &mut Reader<'_>) -> Read<String> {
    let name = r.text("interface name")?;
    let good = |b: u8| b.is_ascii_graphic() && !b"\"*\\".contains(&b);
    if (1..=15).contains(&name.len()) && name.bytes().all(good) {
        Ok(name.to_owned())
    } else {
        Err(DecodeError::Text("an interface name"))
    }
}

fn write_statement(w: &mut Writer, statement: &Statement) {
    use Statement as S;
    match statement {
        S::InPrefix { field, negate, addr, len } => {
            w.u8(1);
            w.u8(field_byte(*field));
            w.u8((*negate).into());
            write_ip(w, *addr);
            w.u8(*len);
        }
        S::IsLocal { field, negate } => {
            w.u8(2);
            w.u8(field_byte(*field));
            w.u8((*negate).into());
        }
        S::StateNew => w.u8(3),
        S::StatusDnat => w.u8(4),
        S::InSet { key, set, negate } => {
            w.u8(5);
            write_fields(w, key);
            write_name(w, set);
            w.u8((*negate).into());
        }
        S::VerdictMap { key, map } => {
            w.u8(6);
            write_fields(w, key);
            write_name(w, map);
        }
        S::Dnat { key, map } => {
            w.u8(7);
            write_fields(w, key);
            write_name(w, map);
        }
        S::Remember { key, data, map } => {
            w.u8(8);
            write_fields(w, key);
            write_fields(w, data);
            write_name(w, map);
        }
        S::MarkIs { bits, set } => {
            w.u8(9);
            w.u32(*bits);
            w.u8((*set).into());
        }
        S::MarkOr(bits) => {
            w.u8(10);
            w.u32(*bits);
        }
        S::MarkXor(bits) => {
            w.u8(11);
            w.u32(*bits);
        }
        S::Masquerade => w.u8(12),
        S::Reject => w.u8(13),
        S::Drop => w.u8(14),
        S::Accept => w.u8(15),
        S::Return => w.u8(16),
        S::Jump(chain) => {
            w.u8(17);
            write_name(w, chain);
        }
        S::Goto(chain) => {
            w.u8(18);
            write_name(w, chain);
        }
        S::FromPods { negate } => {
            w.u8(19);
            w.u8((*negate).into());
        }
        S::InputInterface { name, prefix, negate } => {
            w.u8(20);
            w.text(name);
            w.u8((*prefix).into());
            w.u8((*negate).into());
        }
    }
}

fn read_statement(r: &mut Reader<'_>) -> Read<Statement> {
    use Statement as S;
    Ok(match r.u8()? {
        1 => {
            let (field, negate) = (read_field(r)?, r.bool("negation")?);
            let (addr, len) = read_prefix(r)?;
            S::InPrefix { field, negate, addr, len }
        }
        2 => S::IsLocal { field: read_field(r)?, negate: r.bool("negation")? },
        3 => S::StateNew,
        4 => S::StatusDnat,
        5 => S::InSet { key: read_fields(r)?, set: read_name(r)?, negate: r.bool("negation")? },
        6 => S::VerdictMap { key: read_fields(r)?, map: read_name(r)? },
        7 => S::Dnat { key: read_fields(r)?, map: read_name(r)? },
        8 => S::Remember { key: read_fields(r)?, data: read_fields(r)?, map: read_name(r)? },
        9 => S::MarkIs { bits: r.u32()?, set: r.bool("mark test")? },
        10 => S::MarkOr(r.u32()?),
        11 => S::MarkXor(r.u32()?),
        12 => S::Masquerade,
        13 => S::Reject,
        14 => S::Drop,
        15 => S::Accept,
        16 => S::Return,
        17 => S::Jump(read_name(r)?),
        18 => S::Goto(read_name(r)?),
        19 => S::FromPods { negate: r.bool("negation")? },
        20 => S::InputInterface {
            name: read_interface(r)?,
            prefix: r.bool("prefix")?,
            negate: r.bool("negation")?,
        },
        v => return Err(DecodeError::Invalid { what: "statement", value: v.into() }),
    })
}
