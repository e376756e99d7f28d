//! The process that serves: the real server on a clock that can be moved, told
//! what to do in lines on stdin. When stdin ends, it ends too.

use anyhow::{Context, Result, bail};
use gosync_proto::mutant::Side;
use gosync_server::Server;
use gosync_server::clock::WallClock;
use gosync_server::config::{Config, Override};
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// The machine's clock, Unix milliseconds.
pub fn system_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// Serves until told to stop. Arguments: the clock's offset in milliseconds,
/// the name of a mutant or nothing, then settings as `KEY=VALUE`.
pub fn run(args: Vec<String>) -> Result<()> {
    let mut args = args.into_iter();
    let offset: i64 = args.next().context("no clock offset")?.parse()?;
    let offset = Arc::new(AtomicI64::new(offset));
    crate::mutants::become_one(&args.next().context("no mutant")?, Side::Server)?;
    let mut settings: Vec<Override> =
        vec!["listen=127.0.0.1:0".parse().map_err(anyhow::Error::msg)?];
    for arg in args {
        settings.push(arg.parse().map_err(anyhow::Error::msg)?);
    }
    let config = Config::load(None, &settings)?;
    let clock = WallClock::new({
        let offset = offset.clone();
        move || system_ms().saturating_add_signed(offset.load(Ordering::SeqCst))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let server = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(config.listen).await?;
        anyhow::Ok(Server::on(listener, config, clock).await?)
    })?;
    say(&format!("listening {}", server.url()))?;
    let commands = Commands {
        offset,
        auth: server.auth(),
        stop: stop.clone(),
    };
    std::thread::spawn(move || commands.follow());
    runtime.block_on(server.run(stop))?;
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Commands {
    offset: Arc<AtomicI64>,
    auth: Arc<gosync_server::auth::Auth>,
    stop: CancellationToken,
}

impl Commands {
    fn follow(&self) {
        for line in std::io::stdin()
            .lock()
            .lines()
            .map_while(std::result::Result::ok)
        {
            // answered before it is obeyed: the process ends with it
            let stop = line == "stop";
            let answer = match self.obey(&line) {
                _ if stop => "ok".to_owned(),
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("error {error:#}"),
            };
            if say(&answer).is_err() || stop {
                break;
            }
        }
        self.stop.cancel();
    }

    fn obey(&self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["clock", offset] => self.offset.store(offset.parse()?, Ordering::SeqCst),
            ["reload"] => {
                self.auth.reload(true)?;
            }
            _ => bail!("unknown command {line:?}"),
        }
        Ok(())
    }
}
