"""One file a verb: the only place where configuration, fields, mathematics and archives meet."""
