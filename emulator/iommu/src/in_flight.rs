//! Accesses between their issue and their landing.

use journal::event::{ContextId, Event, TokenId};
use memory::{Gpa, RequesterId};
use std::collections::BTreeMap;

use crate::translate::Env;

/// Accesses that may be in flight at once; a further one lands as it is
/// issued, as a full write buffer makes it.
pub(crate) const MAX_TOKENS: usize = 4096;

/// One access that was issued. Its translation is fixed: only an
/// invalidation that drains may come between it and its landing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub device: RequesterId,
    pub context: ContextId,
    pub gpa: Gpa,
    pub write: bool,
    /// What a write carries; what a read that was drained took.
    pub bytes: Vec<u8>,
    /// Drained by an invalidation, and not yet asked for by the device.
    pub landed: bool,
    /// Virtual time before which it does not land unless it must; 0: the
    /// scenario is asked.
    pub due: u64,
    /// What was read of it before.
    pub prefix: Vec<u8>,
}

/// Every access in flight, by token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    tokens: BTreeMap<TokenId, Token>,
    /// Tokens given out so far.
    issued: u32,
}

impl InFlight {
    /// Tokens that have not landed.
    pub fn pending(&self) -> usize {
        self.tokens.values().filter(|t| !t.landed).count()
    }

    pub fn has_room(&self) -> bool {
        self.tokens.len() < MAX_TOKENS
    }

    pub fn insert(&mut self, token: Token) -> TokenId {
        self.issued = self.issued.wrapping_add(1);
        let id = TokenId(self.issued);
        self.tokens.insert(id, token);
        id
    }

    pub fn get(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(&id)
    }

    pub fn remove(&mut self, id: TokenId) -> Option<Token> {
        self.tokens.remove(&id)
    }

    /// Land what was issued so far, reads or writes or both, whatever the
    /// domain: draining is of everything the unit has processed (VT-d 6.5.4).
    pub fn drain(&mut self, env: Env<'_>, reads: bool, writes: bool) {
        for (&id, token) in &mut self.tokens {
            if token.landed || !(if token.write { writes } else { reads }) {
                continue;
            }
            token.copy(env);
            token.landed = true;
            env.journal().emit(Event::Landed {
                token: id,
                drained: true,
            });
        }
    }

    /// Give up every access of a device.
    pub fn cancel(&mut self, env: Env<'_>, device: RequesterId) {
        self.tokens.retain(|&id, token| {
            if token.device != device {
                return true;
            }
            if !token.landed {
                env.journal().emit(Event::Cancelled { token: id });
            }
            false
        });
    }
}

impl Token {
    /// The landing: the bytes move.
    pub fn copy(&mut self, env: Env<'_>) {
        // That there is RAM was checked at issue, and RAM does not move.
        let moved = if self.write {
            env.memory.write(self.gpa, &self.bytes)
        } else {
            env.memory.read(self.gpa, &mut self.bytes)
        };
        debug_assert!(moved.is_ok(), "RAM went away under an access in flight");
    }
}
