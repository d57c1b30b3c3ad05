//! In place of `server`, with the feature `debug` off: dumps need an inspector only.

use std::convert::Infallible;
use std::sync::Arc;

use crate::Config;
use crate::host::descriptor_reserve;
use crate::inspector::Inspector;
use crate::log;
use crate::settings::Settings;
use crate::started::Started;
use crate::targets::Limits;
use crate::watch::Journal;

pub(crate) struct Server {
    limits: Limits,
}

pub(crate) fn start(_: &Config, settings: Settings, _: &Arc<Journal>) -> Result<Server, Infallible> {
    settings.ignored.iter().for_each(|line| log::say_once(line));
    descriptor_reserve::open();
    Ok(Server { limits: settings.limits })
}

impl Server {
    pub(crate) fn started(&self) -> Started {
        Started::WithoutServer
    }

    /// A new one for each dump: no thread would free its caches later.
    pub(crate) fn inspector(&self) -> Arc<Inspector> {
        Arc::new(Inspector::new(self.limits, None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        descriptor_reserve::close();
    }
}
