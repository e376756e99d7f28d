//! `cargo xtask demo`: the todo page in a browser, backed by the reference server on SQLite.
//!
//! Needs no Node: the page's JavaScript is checked in, only the WASM client is built here.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{build_wasm, files, process, workspace};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Serve the todo page at http://localhost:8080, with the WASM client in the browser and SQLite behind the server
///
/// Try this: open the page in two windows, add a few todos and see them arrive in the other one. Stop the server with
/// Ctrl-C, go on working, reload the page. Start the demo again: the page catches up by itself.
///
/// The data stays in target/demo/gosync.db, a plain SQLite file, until you ask for --fresh.
#[derive(clap::Args)]
pub struct Args {
    /// Port to serve on, on this machine only
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Begin with an empty database (browsers that have data will fill it again)
    #[arg(long)]
    fresh: bool,
}

/// Runs the command until it is interrupted.
pub fn run(args: &Args) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    // Asked before the builds: nobody likes to wait minutes for this answer.
    if let Err(error) = TcpListener::bind(address) {
        bail!("cannot listen on {address} ({error}): choose another port with --port");
    }
    build_server()?;
    build_wasm::build()?;
    let folder = workspace::target().join("demo");
    let site = site(&folder)?;
    let database = folder.join("gosync.db");
    if args.fresh {
        remove_database(&database)?;
    }
    let mut command = Command::new(workspace::program("quick", "gosync-server"));
    command
        .arg("serve")
        .args(["--listen", &address.to_string()])
        .args(["--db", &format!("sqlite:{}", database.display())])
        .arg("--static")
        .arg(&site);
    serve(&mut command, address, &database)
}

fn build_server() -> Result<()> {
    process::run(workspace::cargo().current_dir(workspace::root()).args([
        "build",
        "--profile=quick",
        "--package",
        "gosync-server",
        "--bin",
        "gosync-server",
    ]))
}

/// Puts the page together in `folder/site`: the demo's files, the package's JavaScript and the WASM client.
pub fn site(folder: &Path) -> Result<PathBuf> {
    let site = folder.join("site");
    files::remove_dir(&site)?;
    files::copy_dir(&workspace::root().join("reference-client/demo"), &site)?;
    for part in ["dist", "wasm"] {
        files::copy_dir(
            &build_wasm::js().join(part),
            &site.join("gosync").join(part),
        )?;
    }
    Ok(site)
}

/// SQLite keeps up to two more files beside a database.
fn remove_database(database: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", name.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn serve(command: &mut Command, address: SocketAddr, database: &Path) -> Result<()> {
    eprintln!("  $ {}", process::line(command));
    own_group(command.stdin(Stdio::null()));
    let stop = Stop::install()?;
    let mut child = command.spawn().context("cannot start the server")?;
    stop.watch(&child);
    if wait_until_listening(&mut child, address)? {
        println!(
            "\nThe demo is at http://localhost:{}\n\n\
             Open it in two windows. Stop this with Ctrl-C and the page keeps working offline;\n\
             run it again and the page catches up. The data: {}\n",
            address.port(),
            database.display()
        );
    }
    let status = child.wait()?;
    if stop.asked() || status.success() {
        return Ok(());
    }
    bail!("the server ended ({status})")
}

/// Whether the server accepts connections; false when it ended first.
fn wait_until_listening(child: &mut Child, address: SocketAddr) -> Result<bool> {
    let end = Instant::now() + START_LIMIT;
    while Instant::now() < end {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    bail!(
        "the server did not listen on {address} within {} s",
        START_LIMIT.as_secs()
    )
}

/// Ctrl-C and termination, passed on to the server: the first asks it to finish, the second ends it.
#[derive(Clone, Default)]
struct Stop {
    asked: Arc<AtomicBool>,
    server: Arc<AtomicU32>,
}

impl Stop {
    fn install() -> Result<Self> {
        let stop = Self::default();
        let handler = stop.clone();
        ctrlc::set_handler(move || {
            let again = handler.asked.swap(true, Ordering::SeqCst);
            end(handler.server.load(Ordering::SeqCst), again);
        })
        .context("cannot handle Ctrl-C")?;
        Ok(stop)
    }

    fn watch(&self, child: &Child) {
        self.server.store(child.id(), Ordering::SeqCst);
        if self.asked() {
            end(child.id(), false);
        }
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// In a process group of its own the server hears of Ctrl-C once, from here, and can finish its work.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(unix)]
fn end(server: u32, now: bool) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let signal = if now { Signal::SIGKILL } else { Signal::SIGINT };
    if let Ok(pid @ 1..) = i32::try_from(server) {
        // An error means that it has ended already.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Where there are no process groups the server gets Ctrl-C from the terminal itself.
#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(not(unix))]
fn end(_: u32, _: bool) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_start_removes_the_database_with_its_companions_only() {
        let temp = tempfile::tempdir().unwrap();
        let database = temp.path().join("gosync.db");
        for name in ["gosync.db", "gosync.db-wal", "other.db"] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        remove_database(&database).unwrap();
        assert_eq!(
            files::walk(temp.path()).unwrap(),
            [PathBuf::from("other.db")]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_server_that_ends_before_it_listens_is_noticed() {
        let mut child = Command::new("true").spawn().unwrap();
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(!wait_until_listening(&mut child, nobody).unwrap());
    }

    #[test]
    fn a_port_that_is_taken_is_refused_before_anything_is_built() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = run(&Args { port, fresh: false }).unwrap_err().to_string();
        assert!(error.contains("--port"), "{error}");
    }
}
