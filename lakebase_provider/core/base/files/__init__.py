"""Files and folders of this machine, checked for what others may have put in their place."""
