//! Members who break the rules: what they send is void for all alike, or slows them alone, and the matter goes on.
