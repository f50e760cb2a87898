"""The broker of a lab with accounts: a site's certificates, nodes, access list, and the broker that enforces them."""
