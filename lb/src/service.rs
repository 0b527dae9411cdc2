//! Services, VIPs and servers as typed objects.
