//! A store on a device, and the openings that share it, as the tabs of a browser
//! do: one of them syncs, and they tell each other what they wrote. Knows
//! neither network nor server.

use crate::chance::Chance;
use crate::drive::Drive;
use crate::executor::Process;
use crate::failing::Failing;
use crate::store::SimStore;
use futures::FutureExt as _;
use gosync_client::Client;
use gosync_client::client::Event;
use gosync_client::store::{Store as _, StoreError, Stored};
use gosync_proto::{Key, KeyRange, RangeSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An opening: what runs it, and the client once it is ready.
type Opening = (Process, Option<Client<SimStore>>);

struct State {
    disk: Drive,
    openings: BTreeMap<usize, Opening>,
    /// The opening that syncs.
    lead: Option<usize>,
    ranges: RangeSet,
    /// Where content was damaged: there it is hashed before it counts.
    damaged: BTreeSet<Key>,
    failing: Failing,
}

/// Clones are the same store.
#[derive(Clone)]
pub struct Household {
    number: usize,
    state: Arc<Mutex<State>>,
}

impl Household {
    /// A store on that drive.
    pub fn new(number: usize, disk: Drive) -> Household {
        Household {
            number,
            state: Arc::new(Mutex::new(State {
                disk,
                openings: BTreeMap::new(),
                lead: None,
                ranges: RangeSet::all(),
                damaged: BTreeSet::new(),
                failing: Failing::default(),
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its place among the stores.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it keeps.
    pub fn disk(&self) -> Drive {
        self.state().disk.clone()
    }

    /// How its disk fails.
    pub fn failing(&self) -> Failing {
        self.state().failing.clone()
    }

    /// All of it is gone. Nobody may have it open.
    ///
    /// # Errors
    /// No other store can be made.
    pub fn lose(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        state.disk = state.disk.another()?;
        Ok(())
    }

    /// A tab died. When it was the last, the device died with it.
    ///
    /// # Errors
    /// What is left cannot be opened.
    pub fn crashed(&self, chance: &Chance) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.openings.is_empty() {
            state.disk = state.disk.crashed(chance)?;
        }
        Ok(())
    }

    /// Spoils stored content under its digest.
    pub fn damage(&self, key: &Key) {
        let mut state = self.state();
        state.damaged.insert(key.clone());
        // a drive neither waits nor fails
        let _ = state.disk.damage(std::slice::from_ref(key)).now_or_never();
    }

    /// Whether what is stored is what was stored there.
    pub fn is_intact(&self, stored: &Stored) -> bool {
        !self.state().damaged.contains(&stored.record.key) || stored.intact()
    }

    /// The ranges that it holds.
    pub fn ranges(&self) -> RangeSet {
        self.state().ranges.clone()
    }

    /// From the next opening on.
    pub fn set_ranges(&self, ranges: Vec<KeyRange>) {
        self.state().ranges = RangeSet::union(ranges);
    }

    /// A tab begins to open it: whether it is the one that syncs. `None` when
    /// it has it open.
    pub fn open(&self, tab: usize, process: Process) -> Option<bool> {
        let mut state = self.state();
        if state.openings.contains_key(&tab) {
            return None;
        }
        state.openings.insert(tab, (process, None));
        Some(*state.lead.get_or_insert(tab) == tab)
    }

    /// A tab has it open. It may have come to be the one that syncs meanwhile.
    pub fn opened(&self, tab: usize, client: &Client<SimStore>) {
        let mut state = self.state();
        if let Some(opening) = state.openings.get_mut(&tab) {
            opening.1 = Some(client.clone());
        }
        let leads = state.lead == Some(tab);
        drop(state);
        if leads {
            client.set_online(true);
        }
    }

    /// A tab is gone: what ran it, unless it was not open. Another tab takes
    /// over what it did.
    pub fn close(&self, tab: usize) -> Option<Process> {
        let (closed, heir) = {
            let mut state = self.state();
            let closed = state.openings.remove(&tab);
            let mut heir = None;
            if state.lead == Some(tab) {
                state.lead = state.openings.keys().next().copied();
                let opening = state.lead.and_then(|lead| state.openings.get(&lead));
                heir = opening.and_then(|(_, client)| client.clone());
            }
            (closed, heir)
        };
        if let Some(client) = heir {
            client.hear(Event::Missed);
            client.set_online(true);
        }
        closed.map(|(process, _)| process)
    }

    /// The client of a tab, while it is open.
    pub fn client(&self, tab: usize) -> Option<Client<SimStore>> {
        self.state().openings.get(&tab)?.1.clone()
    }

    /// What runs a tab, while it is open.
    pub fn process(&self, tab: usize) -> Option<Process> {
        Some(self.state().openings.get(&tab)?.0)
    }

    /// Whether this tab is the one that syncs.
    pub fn leads(&self, tab: usize) -> bool {
        self.state().lead == Some(tab)
    }

    /// The other tabs hear what this one tells.
    pub fn tell(&self, tab: usize, event: &Event) {
        let others: Vec<Client<SimStore>> = {
            let state = self.state();
            let others = state.openings.iter().filter(|(other, _)| **other != tab);
            others
                .filter_map(|(_, (_, client))| client.clone())
                .collect()
        };
        for other in others {
            other.hear(event.clone());
        }
    }
}
