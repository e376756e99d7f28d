//! The client as JavaScript sees it. A thin layer: text and promises in, text
//! and promises out; what reads well in TypeScript is made of it in `js/`.

#[cfg(target_arch = "wasm32")]
mod api;
#[cfg(target_arch = "wasm32")]
mod errors;
pub mod news;
#[cfg(target_arch = "wasm32")]
mod records;
#[cfg(target_arch = "wasm32")]
mod runtime;

#[cfg(target_arch = "wasm32")]
pub use api::Replica;
#[cfg(target_arch = "wasm32")]
pub use errors::Failure;
#[cfg(target_arch = "wasm32")]
pub use runtime::WebRuntime;
