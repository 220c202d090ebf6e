//! Chains of endorsements: what is and is not believed.
