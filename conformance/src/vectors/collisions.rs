//! Sets that fingerprints by XOR or addition confuse, and the protocol's do not.

use super::form::Hex;
use super::{Case, Kind};
use crate::oracle::{self, Record};
use crate::schema::hex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Two sets of keys; the records are those of [`record`].
#[derive(Clone, Serialize, Deserialize)]
pub struct Collision {
    combine: Combine,
    weak: String,
    a: Vec<Hex>,
    b: Vec<Hex>,
    fingerprint_a: Hex,
    fingerprint_b: Hex,
}

/// A weak way to make one number of all digests.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Combine {
    Xor,
    Sum128,
}

impl Combine {
    /// Without leading zeros.
    fn of(self, set: &[Record]) -> String {
        let digests = set.iter().map(Record::digest);
        let bytes = match self {
            Combine::Xor => digests.fold([0; 32], xor).to_vec(),
            Combine::Sum128 => {
                let low = digests.map(|digest| {
                    let mut low = [0; 16];
                    low.copy_from_slice(&digest[16..]);
                    u128::from_be_bytes(low)
                });
                low.fold(0, u128::wrapping_add).to_be_bytes().to_vec()
            }
        };
        match hex(&bytes).trim_start_matches('0') {
            "" => "0".to_owned(),
            digits => digits.to_owned(),
        }
    }
}

fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

impl Kind for Collision {
    const NAME: &'static str = "collisions";
    const ABOUT: &'static str = "Sets that fingerprints by XOR or addition cannot tell apart. Each record has time 65536, replica 1, no flags and an empty value.";

    fn cases() -> Vec<Case<Collision>> {
        let case = |how: &str, combine, numbers: [Vec<u32>; 2]| {
            let [a, b] = numbers.map(|set| {
                let mut keys: Vec<Hex> = set.into_iter().map(|n| Hex(key(n))).collect();
                keys.sort();
                keys
            });
            let of = Collision {
                combine,
                weak: String::new(),
                a,
                b,
                fingerprint_a: Hex(Vec::new()),
                fingerprint_b: Hex(Vec::new()),
            };
            Case::new(
                format!("two sets of equal size with the same {how} of digests"),
                of,
            )
        };
        vec![
            case("xor", Combine::Xor, same_xor()),
            case(
                "sum modulo 2^128",
                Combine::Sum128,
                SAME_SUM.map(|set| set.to_vec()),
            ),
        ]
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let records = |keys: &[Hex]| -> Vec<Record> { keys.iter().map(|k| record(&k.0)).collect() };
        let (a, b) = (records(&self.a), records(&self.b));
        if a == b || a.len() != b.len() {
            return Err("the sets are the same, or differ in size".into());
        }
        self.weak = self.combine.of(&a);
        if self.weak != self.combine.of(&b) {
            return Err("the weak fingerprint tells the sets apart".into());
        }
        let strong = |set: &[Record]| oracle::fingerprint(&set.iter().collect::<Vec<_>>());
        if strong(&a) == strong(&b) {
            return Err("the fingerprint does not tell the sets apart".into());
        }
        self.fingerprint_a = Hex(strong(&a).to_vec());
        self.fingerprint_b = Hex(strong(&b).to_vec());
        Ok(None)
    }
}

fn key(n: u32) -> Vec<u8> {
    format!("n{n:07}").into_bytes()
}

fn record(key: &[u8]) -> Record {
    Record::put(key, 1 << 16, 1, "")
}

/// Two sets of equal size with the same XOR of digests, by elimination.
fn same_xor() -> [Vec<u32>; 2] {
    let mut basis: BTreeMap<u32, ([u8; 32], BTreeSet<u32>)> = BTreeMap::new();
    for n in 0.. {
        let (mut value, mut used) = (record(&key(n)).digest(), BTreeSet::from([n]));
        while let Some(top) = zeros(&value) {
            match basis.get(&top) {
                None => {
                    basis.insert(top, (value, used.clone()));
                    break;
                }
                Some((other, others)) => {
                    value = xor(value, *other);
                    used = &used ^ others;
                }
            }
        }
        if value == [0; 32] && used.len() % 2 == 0 {
            let mut a: Vec<u32> = used.into_iter().collect();
            let b = a.split_off(a.len() / 2);
            return [a, b];
        }
    }
    [Vec::new(), Vec::new()]
}

/// How many bits are 0 before the first 1; `None` when all are.
fn zeros(value: &[u8; 32]) -> Option<u32> {
    let byte = value.iter().position(|b| *b != 0)?;
    Some(byte as u32 * 8 + value[byte].leading_zeros())
}

/// Two sets of equal size with the same sum of digests modulo 2^128. Found by Wagner's tree algorithm among 128 lists
/// of 65,536 records, of which half count with a minus; a few minutes of one core.
const SAME_SUM: [[u32; 64]; 2] = [
    [
        61342, 170101, 312484, 404437, 546281, 660986, 788537, 959495, 1087638, 1206787, 1332726,
        1490924, 1596851, 1746335, 1878852, 1968595, 2141548, 2263552, 2379367, 2531543, 2678656,
        2816665, 2892700, 3037494, 3200022, 3289553, 3453224, 3570248, 3672289, 3862349, 3932902,
        4071804, 4246231, 4374778, 4495433, 4611895, 4773337, 4884034, 5027326, 5126586, 5263016,
        5434026, 5556719, 5639690, 5812846, 5953973, 6058794, 6196811, 6319099, 6438674, 6580525,
        6703077, 6868316, 6991810, 7092710, 7242172, 7369074, 7494806, 7657202, 7795605, 7865568,
        8001462, 8187110, 8288984,
    ],
    [
        119198, 247132, 381966, 506040, 623423, 762478, 906975, 988257, 1134985, 1300131, 1440616,
        1572374, 1651399, 1782375, 1908960, 2080280, 2210869, 2327035, 2435972, 2589012, 2704524,
        2823001, 2961522, 3089678, 3246883, 3402136, 3480913, 3637924, 3791842, 3925189, 4010176,
        4150718, 4262096, 4449258, 4569328, 4690154, 4831396, 4957381, 5092956, 5216290, 5329478,
        5461722, 5587304, 5746743, 5862200, 6014970, 6133586, 6247879, 6369272, 6539453, 6632604,
        6758561, 6902484, 7073467, 7200156, 7282078, 7412137, 7591099, 7732065, 7820673, 7944868,
        8114399, 8218927, 8362240,
    ],
];
