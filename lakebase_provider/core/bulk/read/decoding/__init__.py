"""Binary COPY data taken apart."""
