//! SQLite's table of functions, over [`Disk`]. The only unsafe code: it turns
//! the pointers that SQLite passes into references and slices, and back.
//!
//! SQLite promises (<https://www.sqlite.org/c3ref/io_methods.html>) that a
//! `sqlite3_file` handed to a method is one that `xOpen` filled and `xClose`
//! did not yet see, that buffers have the length given beside them, and that
//! one file is not used by two threads at once.

use crate::disk::{Disk, Failure, OpenFile, Opening, Region, VFS};
use crate::locks::Level;
use rusqlite::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What SQLite allocates for each open file.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    file: OpenFile,
    /// Keeps alive what SQLite has pointers to.
    regions: Vec<Region>,
}

/// Makes the table known to SQLite, once, as the one that is used when none is
/// named.
pub fn register_by_default() {
    register();
    let name = CString::new(VFS).unwrap_or_default();
    // SAFETY: the table was leaked by `register`; to register it once more
    // only makes it the default.
    unsafe {
        let ours = ffi::sqlite3_vfs_find(name.as_ptr());
        let result = ffi::sqlite3_vfs_register(ours, 1);
        assert_eq!(result, ffi::SQLITE_OK, "SQLite takes the VFS");
    }
}

/// Makes the table known to SQLite, once.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let name = CString::new(VFS).unwrap_or_default().into_raw();
        // SAFETY: a null name asks for the system's own VFS, which lives for
        // ever, as what is leaked here does; SQLite keeps the pointer.
        unsafe {
            let system = ffi::sqlite3_vfs_find(std::ptr::null());
            let table = Box::leak(Box::new(ffi::sqlite3_vfs {
                iVersion: 2,
                szOsFile: size_of::<File>() as c_int,
                mxPathname: 512,
                pNext: std::ptr::null_mut(),
                zName: name,
                pAppData: system.cast(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_pathname),
                xDlOpen: None,
                xDlError: None,
                xDlSym: None,
                xDlClose: None,
                xRandomness: Some(randomness),
                xSleep: Some(sleep),
                xCurrentTime: Some(current_time),
                xGetLastError: Some(last_error),
                xCurrentTimeInt64: Some(current_time_int64),
                xSetSystemCall: None,
                xGetSystemCall: None,
                xNextSystemCall: None,
            }));
            let result = ffi::sqlite3_vfs_register(table, 0);
            assert_eq!(result, ffi::SQLITE_OK, "SQLite takes the VFS");
        }
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// A panic must not pass through C.
fn guarded(call: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(ffi::SQLITE_INTERNAL)
}

/// A result as SQLite's number; `io` is the one for this operation.
fn code(result: Result<(), Failure>, io: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Failure::Full) => ffi::SQLITE_FULL,
        Err(Failure::Io) => io,
        Err(Failure::NotFound | Failure::Exists) => ffi::SQLITE_CANTOPEN,
    }
}

fn level(n: c_int) -> Level {
    match n {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

/// The open file behind SQLite's.
///
/// # Safety
/// `file` is one that [`open`] filled and [`close`] did not see.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    unsafe { &mut *(*file.cast::<File>()).open }
}

/// # Safety
/// `name` is a C string.
unsafe fn located(name: *const c_char) -> Option<(Disk, String)> {
    Disk::locate(unsafe { CStr::from_ptr(name) }.to_str().ok()?)
}

/// The system's own VFS.
///
/// # Safety
/// `vfs` is our table.
unsafe fn system(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    unsafe { (*vfs).pAppData.cast() }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    static TEMPORARY: AtomicU64 = AtomicU64::new(0);
    guarded(|| unsafe {
        // SQLite calls nothing on a file without methods
        (*file).pMethods = std::ptr::null();
        let how = Opening {
            create: flags & ffi::SQLITE_OPEN_CREATE != 0,
            exclusive: flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0,
            remove_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
            sync_name: flags
                & (ffi::SQLITE_OPEN_WAL
                    | ffi::SQLITE_OPEN_MAIN_JOURNAL
                    | ffi::SQLITE_OPEN_SUPER_JOURNAL)
                != 0,
        };
        let found = match name.is_null() {
            false => located(name),
            // temporary: on a disk of its own, gone with the file
            true => {
                let n = TEMPORARY.fetch_add(1, Ordering::Relaxed);
                Some((Disk::new(Default::default()), format!("temporary-{n}")))
            }
        };
        let Some((disk, name)) = found else {
            return ffi::SQLITE_CANTOPEN;
        };
        match disk.open(&name, how) {
            Err(failure) => code(Err(failure), ffi::SQLITE_CANTOPEN),
            Ok(open) => {
                (*file.cast::<File>()).open = Box::into_raw(Box::new(Open {
                    file: open,
                    regions: Vec::new(),
                }));
                (*file).pMethods = &METHODS;
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                ffi::SQLITE_OK
            }
        }
    })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guarded(|| unsafe {
        drop(Box::from_raw((*file.cast::<File>()).open));
        (*file).pMethods = std::ptr::null();
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    guarded(|| unsafe {
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), length as usize);
        match opened(file).file.read(at as u64, into) {
            Err(failure) => code(Err(failure), ffi::SQLITE_IOERR_READ),
            Ok(n) if n == into.len() => ffi::SQLITE_OK,
            Ok(n) => {
                into[n..].fill(0);
                ffi::SQLITE_IOERR_SHORT_READ
            }
        }
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    guarded(|| unsafe {
        let from = std::slice::from_raw_parts(from.cast::<u8>(), length as usize);
        let written = opened(file).file.write(at as u64, from);
        code(written, ffi::SQLITE_IOERR_WRITE)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    guarded(|| unsafe {
        let done = opened(file).file.truncate(length as u64);
        code(done, ffi::SQLITE_IOERR_TRUNCATE)
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guarded(|| unsafe { code(opened(file).file.sync(), ffi::SQLITE_IOERR_FSYNC) })
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    guarded(|| unsafe {
        let found = opened(file).file.size().map(|n| *size = n as i64);
        code(found, ffi::SQLITE_IOERR_FSTAT)
    })
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    guarded(|| unsafe {
        match opened(file).file.lock(level(to)) {
            true => ffi::SQLITE_OK,
            false => ffi::SQLITE_BUSY,
        }
    })
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    guarded(|| unsafe {
        opened(file).file.unlock(level(to));
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    guarded(|| unsafe {
        *out = opened(file).file.reserved().into();
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn file_control(
    _file: *mut ffi::sqlite3_file,
    _op: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // as the system's own VFS says of ordinary disks
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    guarded(|| unsafe {
        *out = std::ptr::null_mut();
        let open = opened(file);
        match open.file.index(region as usize, bytes as usize, make != 0) {
            Err(failure) => code(Err(failure), ffi::SQLITE_IOERR_SHMMAP),
            Ok(region) => {
                if let Some(region) = region {
                    // behind atomics: SQLite's own locks and barriers order
                    // what several connections do there
                    *out = region.as_ptr().cast_mut().cast();
                    open.regions.push(region);
                }
                ffi::SQLITE_OK
            }
        }
    })
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    guarded(|| unsafe {
        let slots = first as u32..(first + count) as u32;
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        let file = &opened(file).file;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            file.index_unlock(slots, exclusive);
            return ffi::SQLITE_OK;
        }
        match file.index_lock(slots, exclusive) {
            true => ffi::SQLITE_OK,
            false => ffi::SQLITE_BUSY,
        }
    })
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    guarded(|| unsafe {
        let open = opened(file);
        open.file.index_leave();
        open.regions.clear();
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync: c_int,
) -> c_int {
    guarded(|| unsafe {
        let Some((disk, name)) = located(name) else {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        };
        match disk.remove_file(&name, sync != 0) {
            Err(Failure::NotFound) => ffi::SQLITE_IOERR_DELETE_NOENT,
            done => code(done, ffi::SQLITE_IOERR_DELETE),
        }
    })
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    guarded(|| unsafe {
        *out = 0;
        let Some((disk, name)) = located(name) else {
            return ffi::SQLITE_OK;
        };
        let found = disk.has(&name).map(|there| *out = there.into());
        code(found, ffi::SQLITE_IOERR_ACCESS)
    })
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    guarded(|| unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn randomness(
    vfs: *mut ffi::sqlite3_vfs,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    unsafe {
        let system = system(vfs);
        match (*system).xRandomness {
            Some(call) => call(system, length, out),
            None => 0,
        }
    }
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    unsafe {
        let system = system(vfs);
        match (*system).xSleep {
            Some(call) => call(system, microseconds),
            None => 0,
        }
    }
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    unsafe {
        let system = system(vfs);
        match (*system).xCurrentTime {
            Some(call) => call(system, out),
            None => ffi::SQLITE_ERROR,
        }
    }
}

unsafe extern "C" fn current_time_int64(
    vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    unsafe {
        let system = system(vfs);
        match (*system).xCurrentTimeInt64 {
            Some(call) => call(system, out),
            None => ffi::SQLITE_ERROR,
        }
    }
}

unsafe extern "C" fn last_error(
    _vfs: *mut ffi::sqlite3_vfs,
    _length: c_int,
    _out: *mut c_char,
) -> c_int {
    0
}
