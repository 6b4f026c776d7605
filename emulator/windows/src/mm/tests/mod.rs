#![allow(clippy::unwrap_used)]

mod derived;
mod frames;
mod mdl;
mod model;
mod pages;
mod pool;
mod rules;
mod space;
