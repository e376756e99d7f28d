use crate::{Crash, Disk, Fault, Image, VFS};
use rusqlite::{Connection, ErrorCode, OpenFlags};

fn open(disk: &Disk) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let conn = Connection::open_with_flags_and_vfs(disk.path("db"), flags, VFS).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        .unwrap();
    conn
}

fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn what_was_committed_survives_every_crash_and_what_was_not_does_not() {
    let disk = Disk::new(Image::default());
    let conn = open(&disk);
    conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(9000))")
        .unwrap();
    conn.execute_batch("BEGIN; INSERT INTO t VALUES (2)")
        .unwrap();
    for how in [Crash::Lost, Crash::Kept, Crash::Torn(1), Crash::Torn(2)] {
        let after = Disk::new(disk.crash(how));
        assert_eq!(count(&open(&after)), 1, "{how:?}");
    }
}

#[test]
fn without_a_sync_a_crash_loses_what_was_committed() {
    let disk = Disk::new(Image::default());
    let conn = open(&disk);
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    conn.execute_batch("PRAGMA synchronous = OFF; INSERT INTO t VALUES (1)")
        .unwrap();
    assert_eq!(count(&open(&Disk::new(disk.crash(Crash::Kept)))), 1);
    assert_eq!(count(&open(&Disk::new(disk.crash(Crash::Lost)))), 0);
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next() {
    let disk = Disk::new(Image::default());
    let conn = open(&disk);
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    disk.fail(Fault::Sync, 0);
    let failed = conn.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
    assert_eq!(
        failed.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure),
        "{failed}"
    );
    assert_eq!(disk.failures(), 1);
    // whoever goes on all the same believes that both are durable
    let path = disk.path("db-wal");
    disk.sync(&path).unwrap();
    let kept = disk.crash(Crash::Kept);
    let lost = disk.crash(Crash::Lost);
    assert_ne!(kept, lost);
    assert_eq!(count(&open(&Disk::new(lost))), 0);
}

#[test]
fn a_full_disk_stays_full_until_it_is_mended() {
    let disk = Disk::new(Image::default());
    let conn = open(&disk);
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    disk.fail(Fault::Full, 1);
    for _ in 0..2 {
        let failed = conn.execute_batch("INSERT INTO t VALUES (randomblob(9000))");
        let code = failed.unwrap_err().sqlite_error_code();
        assert_eq!(code, Some(ErrorCode::DiskFull));
        assert_eq!(count(&conn), 0);
    }
    disk.mend();
    conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(count(&conn), 1);
}

#[test]
fn names_are_durable_once_the_folder_was_synced() {
    let disk = Disk::new(Image::default());
    let conn = Connection::open_with_flags_and_vfs(disk.path("a"), OpenFlags::default(), VFS);
    let conn = conn.unwrap();
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(conn);
    disk.wait_until_closed();
    disk.sync_folder().unwrap();
    disk.rename(&disk.path("a"), &disk.path("b")).unwrap();
    let names = |how| disk.crash(how).files.into_keys().collect::<Vec<_>>();
    assert_eq!(names(Crash::Kept), ["b"]);
    assert_eq!(names(Crash::Lost), ["a"]);
    disk.sync_folder().unwrap();
    assert_eq!(names(Crash::Lost), ["b"]);
    assert!(disk.exists(&disk.path("b")) && !disk.exists(&disk.path("a")));
    disk.remove(&disk.path("b")).unwrap();
    assert!(disk.remove(&disk.path("b")).is_err());
}

#[test]
fn connections_exclude_each_other_as_on_any_disk() {
    let disk = Disk::new(Image::default());
    let (a, b) = (open(&disk), open(&disk));
    b.busy_timeout(std::time::Duration::ZERO).unwrap();
    a.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
        .unwrap();
    let busy = b.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert_eq!(busy.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    assert_eq!(count(&b), 0);
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&b), 1);
    // a reader keeps its state while the log is folded into the file
    b.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&b), 1);
    a.execute_batch("INSERT INTO t VALUES (2); PRAGMA wal_checkpoint(PASSIVE)")
        .unwrap();
    assert_eq!((count(&a), count(&b)), (2, 1));
    b.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&b), 2);
}

#[test]
fn every_crash_of_a_recording_can_be_visited() {
    let disk = Disk::new(Image::default());
    let conn = open(&disk);
    conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let recording = disk.recording();
    assert!(!recording.is_empty());
    assert_eq!(recording.len(), disk.changes());
    let mut seen = Vec::new();
    recording.crashes(&[Crash::Kept, Crash::Lost], |at, how, image| {
        seen.push((at, how, image));
    });
    assert_eq!(seen.len(), 2 * (recording.len() + 1));
    assert!(seen[0].2.files.is_empty());
    let last = &seen[seen.len() - 2];
    assert_eq!(last.2, disk.crash(Crash::Kept));
}
