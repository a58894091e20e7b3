"""What laptops ask of Passport: scripts to install, certificates of minutes, tunnels."""
