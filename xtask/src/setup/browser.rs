//! A Chromium and its WebDriver for the browser tests.
//!
//! `CHROME` and `CHROMEDRIVER` name them explicitly; otherwise an installed pair is looked for, and Debian's
//! packages are installed where there is none.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::system;
use crate::process;

const BROWSERS: &[&str] = &[
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
];
const DRIVERS: &[&str] = &["chromedriver", "chromium.chromedriver"];
const OUTSIDE_PATH: &[&str] = &[
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/// A browser and the driver of the same version.
pub struct Browser {
    chrome: PathBuf,
    driver: PathBuf,
}

impl Browser {
    /// The variables under which tests find the two programs.
    pub fn env(&self) -> [(&'static str, &Path); 2] {
        [("CHROME", &self.chrome), ("CHROMEDRIVER", &self.driver)]
    }

    /// The browser's program.
    pub fn chrome(&self) -> &Path {
        &self.chrome
    }

    /// The two programs, for people.
    pub fn describe(&self) -> String {
        format!("{}, {}", self.chrome.display(), self.driver.display())
    }
}

/// Finds or installs a browser and its driver.
pub fn ensure() -> Result<Browser> {
    if find().is_none() && system::has_apt() {
        system::install("testing in a browser", &["chromium", "chromium-driver"])?;
    }
    let Some(browser) = find() else {
        bail!(
            "no Chromium with its WebDriver was found: install Chrome or Chromium and the chromedriver of the same \
             version (https://googlechromelabs.github.io/chrome-for-testing/), and put both on the PATH or name \
             them with CHROME and CHROMEDRIVER"
        );
    };
    let (chrome, driver) = (version(&browser.chrome)?, version(&browser.driver)?);
    if chrome != driver {
        bail!(
            "{} has major version {chrome} but {} has {driver}: install a chromedriver of version {chrome}, or name \
             a matching pair with CHROME and CHROMEDRIVER",
            browser.chrome.display(),
            browser.driver.display()
        );
    }
    Ok(browser)
}

/// Finds or installs Firefox: its program.
pub fn firefox() -> Result<PathBuf> {
    one(
        "FIREFOX",
        &["firefox-esr", "firefox"],
        &[],
        &["firefox-esr"],
    )
}

/// Finds or installs WebKitGTK's own small browser, and a virtual display for it: its program.
pub fn webkit() -> Result<PathBuf> {
    let places: Vec<PathBuf> = ["x86_64", "aarch64"]
        .iter()
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/webkit2gtk-4.1/MiniBrowser").into())
        .collect();
    if on_path(&["xvfb-run"]).is_none() && system::has_apt() {
        system::install("testing in WebKit", &["xvfb", "xauth"])?;
    }
    one("WEBKIT", &[], &places, &["webkit2gtk-driver"])
}

/// A program that a variable names, or that is found, or that Debian's packages bring.
fn one(variable: &str, names: &[&str], places: &[PathBuf], packages: &[&str]) -> Result<PathBuf> {
    let find = || {
        named(variable)
            .or_else(|| on_path(names))
            .or_else(|| places.iter().find(|path| path.is_file()).cloned())
    };
    if find().is_none() && system::has_apt() {
        system::install("testing in a browser", packages)?;
    }
    match find() {
        Some(program) => Ok(program),
        None => bail!(
            "no {} was found: install it, or name it with {variable}",
            packages.join(" ")
        ),
    }
}

fn find() -> Option<Browser> {
    let chrome = named("CHROME").or_else(|| on_path(BROWSERS)).or_else(|| {
        OUTSIDE_PATH
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    })?;
    let driver = named("CHROMEDRIVER").or_else(|| on_path(DRIVERS))?;
    Some(Browser { chrome, driver })
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|file| file.is_file())
}

fn version(program: &Path) -> Result<u32> {
    let said = process::output(Command::new(program).arg("--version"))?;
    match major(&said) {
        Some(major) => Ok(major),
        None => bail!(
            "`{} --version` says `{said}`, which names no version",
            program.display()
        ),
    }
}

/// The major version in what a browser or driver says about itself.
fn major(said: &str) -> Option<u32> {
    said.split_whitespace().find_map(|word| {
        let (major, rest) = word.split_once('.')?;
        rest.starts_with(|c: char| c.is_ascii_digit())
            .then(|| major.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_each_program_prints() {
        assert_eq!(
            major("Chromium 156.0.8078.79 built on Debian GNU/Linux 12 (bookworm)"),
            Some(156)
        );
        assert_eq!(major("Google Chrome 156.0.8078.79"), Some(156));
        assert_eq!(
            major("ChromeDriver 156.0.8078.79 (0c5c9b-refs/branch-heads/1@{#1})"),
            Some(156)
        );
        assert_eq!(major("no version here"), None);
    }
}
