//! A whole replica over a store in memory: at each single operation of its
//! store it freezes and is killed, before the operation or after it was
//! durable, or the operation fails. Whatever was told to be durable comes to
//! the server, and both end with the same. The opening after a crash is killed
//! likewise.

use futures::future::pending;
use gosync_client::platform::{BoxFuture, Moment, NoRandomness, Runtime};
use gosync_client::replica::edit::Edit;
use gosync_client::store::{
    Changes, Counts, Leaf, MemoryStore, Page, Reads, Store, StoreError, View, Write, WriteId,
};
use gosync_client::{Client, Config};
use gosync_proto::limits::Limits;
use gosync_proto::{Key, KeyRange, Record, SpaceId};
use gosync_simulation::chance::Chance;
use gosync_simulation::executor::{Executor, Process};
use gosync_simulation::ledger::Ledger;
use gosync_simulation::net::{Link, Net};
use gosync_simulation::server::{Company, EPOCH_MS, Server};
use gosync_simulation::storage::Keeps;
use gosync_simulation::trace::Trace;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

/// What becomes of one operation.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    /// It never begins, nor does any later one.
    FrozenBefore,
    /// It is done, and nobody hears of it; no later one begins.
    FrozenAfter,
    /// It fails, and leaves nothing; those after it succeed.
    Fails,
    /// It is done, and fails all the same; those after it succeed.
    FailsInDoubt,
}

const ENDS: [End; 4] = [
    End::FrozenBefore,
    End::FrozenAfter,
    End::Fails,
    End::FailsInDoubt,
];

/// So many operations succeed, then one does not.
struct Fuse {
    left: usize,
    end: End,
    passed: usize,
}

/// A store in memory with a fuse. Clones are the same store.
#[derive(Clone)]
struct Fused {
    disk: MemoryStore,
    fuse: Arc<Mutex<Fuse>>,
}

impl Fused {
    fn new(disk: MemoryStore, left: usize, end: End) -> Fused {
        let passed = 0;
        let fuse = Fuse { left, end, passed };
        Fused {
            disk,
            fuse: Arc::new(Mutex::new(fuse)),
        }
    }

    fn passed(&self) -> usize {
        self.fuse.lock().unwrap().passed
    }

    async fn pass<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let end = {
            let mut fuse = self.fuse.lock().unwrap();
            fuse.passed += 1;
            let blown = fuse.passed == fuse.left + 1;
            let frozen = fuse.passed > fuse.left + 1
                && matches!(fuse.end, End::FrozenBefore | End::FrozenAfter);
            match frozen {
                true => Some(End::FrozenBefore),
                false => blown.then_some(fuse.end),
            }
        };
        match end {
            None => operation.await,
            Some(End::FrozenBefore) => pending().await,
            Some(End::FrozenAfter) => {
                drop(operation.await);
                pending().await
            }
            Some(End::Fails) => Err(StoreError::Io("on purpose".into())),
            Some(End::FailsInDoubt) => {
                drop(operation.await);
                Err(StoreError::InDoubt("on purpose".into()))
            }
        }
    }
}

impl Store for Fused {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> (Changes, T) + Send + 'static,
    {
        self.pass(self.disk.transact(reads, decide)).await
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.pass(self.disk.page(range, after, limit)).await
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        self.pass(self.disk.leaves(range, after, limit)).await
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        self.pass(self.disk.writes(after, limit)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.pass(self.disk.counts()).await
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.pass(self.disk.damage(keys)).await
    }
}

#[derive(Clone)]
struct Clockwork {
    executor: Executor,
    process: Process,
    chance: Chance,
}

impl Runtime for Clockwork {
    fn moment(&self) -> Moment {
        let now = self.executor.now_ms();
        Moment {
            mono_ms: now,
            wall_ms: EPOCH_MS + now,
            entropy: self.chance.bits(),
        }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(ms))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn_boxed(self.process, task);
    }

    fn replica_id(&self) -> Result<u64, NoRandomness> {
        Ok(self.chance.bits())
    }
}

/// What its user knows: by key, the value; `None` for what was deleted.
#[derive(Default)]
struct Told {
    durable: BTreeMap<Key, Option<String>>,
    /// Handed to the store without an answer: there as a whole, or not at all.
    begun: BTreeMap<Key, Option<String>>,
    finished: bool,
}

#[derive(Clone)]
struct World {
    executor: Executor,
    chance: Chance,
    server: Server,
    net: Net,
    space: SpaceId,
    told: Arc<Mutex<Told>>,
}

/// Longer than everything that a replica waits for.
const LONG_MS: u64 = 200_000;

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).unwrap()
}

impl World {
    fn new() -> World {
        let chance = Chance::new(7);
        let executor = Executor::new(chance.fork());
        let limits = Limits::default();
        let server = Server::new(
            executor.clone(),
            chance.fork(),
            limits,
            Company::ALONE,
            Keeps::Memory,
        )
        .unwrap();
        let net = Net::new(
            executor.clone(),
            chance.fork(),
            server.clone(),
            2,
            BTreeMap::from([("s".to_owned(), Ledger::new(false))]),
            Trace::new(false),
        );
        World {
            executor,
            chance,
            server,
            net,
            space: SpaceId::new("s").unwrap(),
            told: Arc::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    fn wait(&self, ms: u64) {
        let until = self.executor.now_ms() + ms;
        self.executor.run_until(until).unwrap();
    }

    async fn open<S: Store>(&self, store: S, device: usize, process: Process) -> Option<Client<S>> {
        let link: Link = self.net.link(device);
        let runtime = Clockwork {
            executor: self.executor.clone(),
            process,
            chance: self.chance.clone(),
        };
        let config = Config::new(self.space.as_str()).unwrap();
        Client::open(store, link, runtime, config).await.ok()
    }

    /// Somebody else's device, which nothing befalls, writes this and stays.
    fn elsewhere(&self, store: &MemoryStore, edits: Vec<Edit>) -> Process {
        let (world, store) = (self.clone(), store.clone());
        let process = self.executor.new_process();
        self.executor.spawn(process, async move {
            let client = world.open(store, 1, process).await.unwrap();
            drop(client.batch(edits).await.unwrap());
            pending::<()>().await;
        });
        process
    }

    /// The user hands edits to the replica until it takes them.
    async fn write<S: Store>(&self, client: &Client<S>, edits: &[(&str, Option<&str>)]) {
        let edits: BTreeMap<Key, Option<String>> = edits
            .iter()
            .map(|(name, value)| (key(name), value.map(str::to_owned)))
            .collect();
        loop {
            self.told().begun = edits.clone();
            let batch = edits.iter().map(|(key, value)| match value {
                Some(value) => Edit::Put(key.clone(), value.clone().into()),
                None => Edit::Delete(key.clone()),
            });
            if client.batch(batch.collect()).await.is_ok() {
                let mut told = self.told();
                told.begun.clear();
                told.durable.extend(edits);
                return;
            }
        }
    }

    /// A short life with all that a replica does to its store: writes, their
    /// acknowledgement, what others wrote, a server that lost everything, a
    /// verification.
    async fn live(self, store: Fused, process: Process) {
        let client = loop {
            if let Some(client) = self.open(store.clone(), 0, process).await {
                break client;
            }
        };
        self.write(&client, &[("a", Some("1"))]).await;
        let many = ["b", "c", "d"].map(|name| (name, Some("1")));
        self.write(&client, &many).await;
        drop(client.sync().await);
        let other = MemoryStore::new();
        let theirs = ["b", "x", "y"].map(|name| Edit::Put(key(name), "theirs".into()));
        let guest = self.elsewhere(&other, theirs.to_vec());
        self.executor.sleep(5_000).await;
        self.executor.kill(guest);
        self.write(&client, &[("a", None), ("c", Some("2"))]).await;
        client.set_online(false);
        self.write(&client, &[("d", Some("2"))]).await;
        self.write(&client, &[("d", Some("3")), ("e", Some("1"))])
            .await;
        self.server.stop().unwrap();
        self.server.wipe().unwrap();
        self.server.start();
        client.set_online(true);
        drop(client.sync().await);
        client.store().damage(&[key("x")]).await.ok();
        while client.verify().await.is_err() {
            self.executor.sleep(1_000).await;
        }
        self.executor.sleep(5_000).await;
        self.told().finished = true;
        pending::<()>().await;
    }

    /// Both sides hold the same, all that was told durable, and of what was
    /// begun everything or nothing.
    fn judge(&self, store: &MemoryStore, about: &str) {
        let held = futures::executor::block_on(store.page(&KeyRange::all(), None, usize::MAX));
        let held = held.unwrap();
        assert!(
            held.writes.is_empty() && held.quarantine.is_empty(),
            "{about}: {held:?}"
        );
        let clean = held.clean.into_iter();
        let device: BTreeMap<Key, Record> = clean
            .inspect(|s| assert!(s.intact(), "{about}"))
            .map(|s| (s.record.key.clone(), s.record))
            .collect();
        let server = self.server.records(&self.space).unwrap();
        assert_eq!(device, server, "{about}");
        let told = self.told();
        let is = |key: &Key, value: &Option<String>| {
            let found = server.get(key).filter(|r| !r.is_tombstone());
            let found = found.map(|r| r.content.value());
            // what somebody else wrote later counts, too
            found == value.as_ref().map(String::as_bytes) || found == Some(b"theirs")
        };
        let begun = told.begun.iter().filter(|(key, value)| is(key, value));
        let all = match begun.count() {
            0 => false,
            n if n == told.begun.len() => true,
            n => panic!("{about}: {n} of {:?}", told.begun),
        };
        for (key, value) in &told.durable {
            if !(all && told.begun.contains_key(key)) {
                assert!(
                    is(key, value),
                    "{about}: {key} is not {value:?}: {server:?}"
                );
            }
        }
    }

    /// Lives once with a fuse, is opened with another one, and, where that
    /// blew, once more without.
    fn run(first: Fate, second: Fate) -> Lived {
        let about = format!("{first:?}, then {second:?}");
        let world = World::new();
        let disk = MemoryStore::new();
        let store = Fused::new(disk.clone(), first.left, first.end);
        let process = world.executor.new_process();
        let life = world.clone().live(store.clone(), process);
        world.executor.spawn(process, life);
        world.wait(LONG_MS);
        let passed = store.passed();
        if matches!(first.end, End::Fails | End::FailsInDoubt) || passed <= first.left {
            // one failure does not need another opening
            assert!(world.told().finished, "{about}: it stopped");
            world.judge(&disk, &about);
        }
        world.executor.kill(process);
        let everything = Reads {
            ranges: vec![KeyRange::all()],
            all_writes: true,
            offers: usize::MAX,
            all_quarantined: true,
            ..Reads::default()
        };
        let held = disk.transact(everything, |view| (Changes::default(), format!("{view:?}")));
        let held = futures::executor::block_on(held).unwrap();
        let left = format!("{held} {:?}", world.server.records(&world.space).unwrap());
        let store = Fused::new(disk.clone(), second.left, second.end);
        let process = world.open_again(&store);
        let again = store.passed();
        if again > second.left {
            world.executor.kill(process);
            world.open_again(&disk);
        }
        world.judge(&disk, &format!("{about}, opened again"));
        Lived {
            passed,
            left,
            again,
        }
    }

    fn open_again<S: Store + Clone>(&self, store: &S) -> Process {
        let (world, store, process) = (self.clone(), store.clone(), self.executor.new_process());
        self.executor.spawn(process, async move {
            let client = world.open(store, 0, process).await.unwrap();
            client.sync().await.unwrap();
            client.verify().await.unwrap();
            pending::<()>().await;
        });
        self.wait(LONG_MS);
        process
    }
}

/// So many operations succeed, and how the next one ends.
#[derive(Clone, Copy, Debug)]
struct Fate {
    left: usize,
    end: End,
}

/// Every operation succeeds.
const SOUND: Fate = Fate {
    left: usize::MAX - 1,
    end: End::FrozenBefore,
};

/// What came of a run.
struct Lived {
    /// Operations of the first life, and of the next opening.
    passed: usize,
    again: usize,
    /// What both sides held in between.
    left: String,
}

#[test]
fn a_replica_survives_a_crash_and_a_failure_at_each_operation_of_its_store() {
    let operations = World::run(SOUND, SOUND).passed;
    assert!(operations > 40, "only {operations} operations");
    for end in ENDS {
        for left in 0..operations {
            let passed = World::run(Fate { left, end }, SOUND).passed;
            assert!(passed > left, "{end:?}: operation {left} was never met");
        }
    }
    println!("{operations} operations, {} ends each", ENDS.len());
}

#[test]
fn a_replica_survives_another_crash_at_each_operation_of_the_opening_after_a_crash() {
    let operations = World::run(SOUND, SOUND).passed;
    let (mut seen, mut crashes) = (HashSet::new(), 0);
    for end in [End::FrozenBefore, End::FrozenAfter] {
        for left in 0..operations {
            let first = Fate { left, end };
            let lived = World::run(first, SOUND);
            // crashes that leave the same end alike
            if !seen.insert(lived.left) {
                continue;
            }
            for end in [End::FrozenBefore, End::FrozenAfter] {
                for left in 0..lived.again {
                    let again = World::run(first, Fate { left, end }).again;
                    assert!(again > left, "{first:?}: operation {left} was never met");
                    crashes += 1;
                }
            }
        }
    }
    println!("{crashes} crashes after {} unlike ones", seen.len());
    assert!(seen.len() > 10 && crashes > 100);
}
