"""Which documents do operators approve, and what do they mean? Read by the sidecars and by every face alike."""
