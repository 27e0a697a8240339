//! One module for each verb of the command line.

pub mod attach;
pub mod check;
pub mod detach;
pub mod explain;
pub mod guard;
pub mod hooks;
pub mod list;
pub mod load;
pub mod manual;
pub mod metrics;
pub mod monitor;
pub mod nft;
pub mod offline;
pub mod output;
pub mod restore;
pub mod save;
pub mod simulate;
pub mod source;
pub mod status;
