"""What is kept on disk: trained networks, and what attacks left of them."""
