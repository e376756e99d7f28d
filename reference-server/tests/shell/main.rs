//! The server as its peers see it: over sockets, over gRPC and gRPC-web, in
//! this process and as a program.

mod access;
mod browser;
mod calls;
mod hostile;
mod process;
mod server;
mod streams;
mod tls;
