HTML = "<!doctype html>"
POLICY = ""
