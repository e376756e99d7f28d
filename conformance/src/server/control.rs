//! What cases can do to a server that an adapter controls.

use super::adapter::Adapter;
use super::context::Cx;
use crate::net::Wire;
use crate::schema::driver::{self as wire, control_request::Command};
use crate::suite::Stop;
use std::sync::Arc;

impl Cx {
    fn adapter(&self) -> Result<Arc<Adapter>, Stop> {
        self.target()
            .adapter
            .clone()
            .ok_or_else(|| Stop::Suite("the server is not under control".into()))
    }

    async fn control(&self, command: Command) -> Result<(), Stop> {
        self.adapter()?.command(command).await.map(|_| ())
    }

    /// Puts the server's clock off by so much.
    ///
    /// # Errors
    /// [`Stop::Suite`], as all of these.
    pub async fn set_server_clock(&self, offset_ms: i64) -> Result<(), Stop> {
        self.control(Command::SetClock(wire::SetServerClock { offset_ms }))
            .await
    }

    /// Stops the server in good order.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn stop_server(&self) -> Result<(), Stop> {
        self.control(Command::Stop(wire::StopServer {})).await
    }

    /// Kills the server.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn kill_server(&self) -> Result<(), Stop> {
        self.control(Command::Kill(wire::KillServer {})).await
    }

    /// Starts the server again, as it was started first.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn start_server(&self) -> Result<(), Stop> {
        self.start_as(self.target().start.clone()).await
    }

    /// Does something with the server started anew with these limits, and then
    /// starts it as it was.
    ///
    /// # Errors
    /// [`Stop::Suite`], and what is done says.
    pub async fn with_limits<T, F: Future<Output = Result<T, Stop>>>(
        &self,
        limits: &[(&str, u64)],
        act: impl FnOnce(Cx) -> F,
    ) -> Result<T, Stop> {
        let mut start = self.target().start.clone();
        for (name, value) in limits {
            start.limits.insert((*name).to_owned(), *value);
        }
        self.stop_server().await?;
        self.start_as(start).await?;
        let result = act(self.clone()).await;
        self.stop_server().await?;
        self.start_server().await?;
        result
    }

    async fn start_as(&self, start: wire::StartServer) -> Result<(), Stop> {
        let url = self.adapter()?.start_server(start).await?;
        let endpoint = super::run::told(&url).map_err(Stop::Suite)?;
        self.target().moved(endpoint);
        Ok(())
    }

    /// Spoils the stored bytes of a record of the stopped server.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn damage_server(&self, space: &str, key: &[u8]) -> Result<(), Stop> {
        let (space, key) = (space.to_owned(), key.to_vec());
        self.control(Command::Damage(wire::DamageStore { space, key }))
            .await
    }

    /// Deletes a space for good, as an operator does.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn retire(&self, space: &str) -> Result<(), Stop> {
        let space = space.to_owned();
        self.control(Command::Retire(wire::RetireSpace { space }))
            .await
    }

    /// Makes a backup.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn backup(&self, name: &str) -> Result<(), Stop> {
        let name = name.to_owned();
        self.control(Command::Backup(wire::Backup { name })).await
    }

    /// Puts the backup in the store's place.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn restore(&self, name: &str) -> Result<(), Stop> {
        let name = name.to_owned();
        self.control(Command::Restore(wire::Restore { name })).await
    }

    /// Empties the store.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn wipe(&self) -> Result<(), Stop> {
        self.control(Command::Wipe(wire::WipeStore {})).await
    }

    /// Compacts a space.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn compact(&self, space: &str, before_ms: u64) -> Result<(), Stop> {
        self.compact_sparing(space, before_ms, 0).await
    }

    /// Compacts a space, save for tombstones that are younger in the store.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn compact_sparing(
        &self,
        space: &str,
        before_ms: u64,
        retention_ms: u64,
    ) -> Result<(), Stop> {
        let compact = wire::Compact {
            space: space.to_owned(),
            before_ms,
            retention_ms,
        };
        self.control(Command::Compact(compact)).await
    }

    /// Makes the server's storage fail, or mends it.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn fail_writes(&self, failing: bool) -> Result<(), Stop> {
        self.control(Command::FailWrites(wire::FailWrites { failing }))
            .await
    }

    /// The token that may do everything.
    ///
    /// # Errors
    /// [`Stop::Suite`] when the server asks for none.
    pub fn full_token(&self) -> Result<String, Stop> {
        self.target()
            .tokens
            .full
            .clone()
            .ok_or_else(|| Stop::Suite("there is no token".into()))
    }

    /// A token for one space.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn token_for(&self, space: &str, prefix: &[u8], write: bool) -> Result<String, Stop> {
        let token = wire::MintToken {
            space: space.to_owned(),
            key_prefix: prefix.to_vec(),
            write,
            lifetime_ms: 0,
        };
        self.adapter()?.mint(token).await
    }

    /// A token that was valid once.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn expired_token(&self, space: &str) -> Result<String, Stop> {
        let token = wire::MintToken {
            space: space.to_owned(),
            key_prefix: Vec::new(),
            write: true,
            lifetime_ms: -60_000,
        };
        self.adapter()?.mint(token).await
    }

    /// Ends a token's life.
    ///
    /// # Errors
    /// [`Stop::Suite`].
    pub async fn revoke(&self, token: &str) -> Result<(), Stop> {
        let token = token.to_owned();
        self.control(Command::RevokeToken(wire::RevokeToken { token }))
            .await
    }

    /// The content types that this transport may use.
    pub fn content_types(&self) -> &'static [&'static str] {
        match self.wire() {
            Wire::Grpc => &["application/grpc", "application/grpc+proto"],
            Wire::GrpcWeb => &["application/grpc-web", "application/grpc-web+proto"],
        }
    }
}
