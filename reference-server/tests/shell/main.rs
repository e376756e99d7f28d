//! The server as its peers see it: over sockets, over gRPC and gRPC-web, in
//! this process and as a program.

mod access;
mod browser;
mod calls;
mod commands;
mod hostile;
mod process;
mod program;
mod server;
mod streams;
mod tls;
