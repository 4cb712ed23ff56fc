"""What is kept on disk: trained networks, and which samples attacks broke."""
